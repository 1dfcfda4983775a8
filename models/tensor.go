package models

// DType is an element type by its Open Inference Protocol name.
type DType string

// The element types. BYTES elements are strings; all others have a fixed size.
const (
	BOOL   DType = "BOOL"
	UINT8  DType = "UINT8"
	UINT16 DType = "UINT16"
	UINT32 DType = "UINT32"
	UINT64 DType = "UINT64"
	INT8   DType = "INT8"
	INT16  DType = "INT16"
	INT32  DType = "INT32"
	INT64  DType = "INT64"
	FP16   DType = "FP16"
	BF16   DType = "BF16"
	FP32   DType = "FP32"
	FP64   DType = "FP64"
	BYTES  DType = "BYTES"
)

// Size is the length of one element in bytes, 0 for BYTES and unknown types.
func (t DType) Size() int {
	switch t {
	case BOOL, UINT8, INT8:
		return 1
	case UINT16, INT16, FP16, BF16:
		return 2
	case UINT32, INT32, FP32:
		return 4
	case UINT64, INT64, FP64:
		return 8
	}
	return 0
}

// TensorSpec describes one input or output of a model. A dimension of -1 may
// vary from call to call; a nil Shape is a scalar.
type TensorSpec struct {
	Name  string  `json:"name"`
	DType DType   `json:"datatype" yaml:"datatype"`
	Shape []int64 `json:"shape"`
}

// Signature is what a caller of a model depends on.
type Signature struct {
	Inputs  []TensorSpec `json:"inputs"`
	Outputs []TensorSpec `json:"outputs"`
}
