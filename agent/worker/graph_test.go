package worker

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/edgeherd/edgeherd/models"
)

// graph is a small ONNX model, encoded by hand (onnx.proto: ModelProto).
type graph struct {
	nodes   []node
	in, out []value
}

type node struct {
	op      string
	in, out []string
	to      models.DType // attribute "to" of Cast
}

type value struct {
	name  string
	dtype models.DType
	shape []int64 // -1 = free
	any   bool    // no shape at all
}

// dims is a shape of free dimensions.
func dims(rank int) []int64 { return slices.Repeat([]int64{-1}, rank) }

func unary(op string, from, to models.DType, shape []int64) graph {
	n := node{op: op, in: []string{"x"}, out: []string{"y"}}
	if op == "Cast" {
		n.to = to
	}
	return graph{nodes: []node{n}, in: []value{{name: "x", dtype: from, shape: shape}}, out: []value{{name: "y", dtype: to, shape: shape}}}
}

// chain multiplies x by itself count times: much work, little memory, and many
// nodes between which a run can be stopped.
func chain(count int) graph {
	g := graph{in: []value{{name: "x", dtype: models.FP32, shape: dims(2)}}, out: []value{{name: "y", dtype: models.FP32, shape: dims(2)}}}
	last := "x"
	for i := range count {
		next := "t" + string(rune('a'+i%26)) + string(rune('a'+i/26))
		if i == count-1 {
			next = "y"
		}
		g.nodes = append(g.nodes, node{op: "MatMul", in: []string{last, "x"}, out: []string{next}})
		last = next
	}
	return g
}

func element(d models.DType) uint64 { return uint64(slices.Index(elementTypes[:], d)) }

func field(b []byte, n protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
}

func number(b []byte, n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
}

func (v value) encode() []byte {
	tensor := number(nil, 1, element(v.dtype))
	if !v.any {
		var shape []byte
		for _, d := range v.shape {
			var dim []byte
			if d >= 0 {
				dim = number(nil, 1, uint64(d))
			}
			shape = field(shape, 1, dim)
		}
		tensor = field(tensor, 2, shape)
	}
	return field(field(nil, 1, []byte(v.name)), 2, field(nil, 1, tensor))
}

func (n node) encode() []byte {
	var b []byte
	for _, s := range n.in {
		b = field(b, 1, []byte(s))
	}
	for _, s := range n.out {
		b = field(b, 2, []byte(s))
	}
	b = field(b, 4, []byte(n.op))
	if n.to != "" {
		const attributeInt = 2
		b = field(b, 5, number(number(field(nil, 1, []byte("to")), 3, element(n.to)), 20, attributeInt))
	}
	return b
}

func (g graph) encode() []byte {
	var b []byte
	for _, n := range g.nodes {
		b = field(b, 1, n.encode())
	}
	b = field(b, 2, []byte("g"))
	for _, v := range g.in {
		b = field(b, 11, v.encode())
	}
	for _, v := range g.out {
		b = field(b, 12, v.encode())
	}
	m := number(nil, 1, 8)              // IR version
	m = field(m, 8, number(nil, 2, 17)) // operator set 17
	return field(m, 7, b)
}

func (g graph) write(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.onnx")
	if err := os.WriteFile(path, g.encode(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
