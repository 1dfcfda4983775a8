package models

// Golden is the content of GoldenFile: samples with the answers that the
// publisher measured. A box that answers differently does not serve the model.
type Golden struct {
	V     int          `json:"v"`
	Cases []GoldenCase `json:"cases"`
}

// GoldenCase is one call and its right answer.
type GoldenCase struct {
	Name    string        `json:"name"`
	Inputs  []GoldenInput `json:"inputs"`
	Outputs []GoldenWant  `json:"outputs"`
}

// GoldenInput is a whole tensor; Data is its raw little-endian content.
type GoldenInput struct {
	TensorSpec
	Data []byte `json:"data"`
}

// GoldenWant is an expected tensor. An element is right when
// |got − want| ≤ Abs + Rel·|want|; a case is right when all elements are.
type GoldenWant struct {
	TensorSpec
	Data []byte  `json:"data"`
	Abs  float64 `json:"abs"`
	Rel  float64 `json:"rel"`
}
