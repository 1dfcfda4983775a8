package worker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"github.com/edgeherd/edgeherd/models"
)

// elementTypes lists the element types by their ONNXTensorElementDataType
// number, which equals TensorProto.DataType of the ONNX format.
var elementTypes = [...]models.DType{
	1: models.FP32, 2: models.UINT8, 3: models.INT8, 4: models.UINT16, 5: models.INT16,
	6: models.INT32, 7: models.INT64, 8: models.BYTES, 9: models.BOOL, 10: models.FP16,
	11: models.FP64, 12: models.UINT32, 13: models.UINT64, 16: models.BF16,
}

// valueKinds names the ONNXType numbers for error texts.
var valueKinds = [...]string{"an unknown value", "a tensor", "a sequence", "a map", "an opaque value", "a sparse tensor", "an optional value"}

const onnxTypeTensor = 1

// port is one input or output of a loaded model.
type port struct {
	Spec     models.TensorSpec `json:"spec"`
	AnyShape bool              `json:"any_shape,omitempty"` // the model declares no rank
	element  uintptr           // ONNXTensorElementDataType
	name     uintptr           // C string owned by the runtime until the process ends
}

// bound is an input of one run: the bytes stay where they are.
type bound struct {
	port  int
	shape []int64
	data  []byte
}

// session is one loaded model. Not safe for concurrent use, except terminate.
type session struct {
	lib       *library
	handle    uintptr
	memory    uintptr
	allocator uintptr
	options   uintptr // OrtRunOptions
	in, out   []port
	run       runFrame
}

// runFrame is the argument memory of one OrtApi::Run; reused, since the
// function must see heap memory that stays put.
type runFrame struct {
	inNames, inValues, outNames, outValues []uintptr
}

func newSession(lib *library, model string, threads int) (*session, error) {
	s := &session{lib: lib}
	var env, options uintptr
	// Severity 3 is ERROR: warnings about the graph would fill the journal of a box.
	if err := lib.try(slotCreateEnv, 3, uintptr(unsafe.Pointer(cBytes("edgeherd"))), uintptr(unsafe.Pointer(&env))); err != nil {
		return nil, fmt.Errorf("start ONNX Runtime: %w", err)
	}
	if err := lib.try(slotCreateSessionOptions, uintptr(unsafe.Pointer(&options))); err != nil {
		return nil, fmt.Errorf("start ONNX Runtime: %w", err)
	}
	defer lib.call(slotReleaseSessionOptions, options)
	err := errors.Join(
		lib.try(slotSetSessionLogSeverityLevel, options, 3),
		lib.try(slotSetIntraOpNumThreads, options, uintptr(threads)),
		lib.try(slotSetInterOpNumThreads, options, 1),
		// Spinning threads burn about twice the CPU, and heat, for nothing on a small box.
		s.setConfig(options, "session.intra_op.allow_spinning", "0"),
		s.setConfig(options, "session.inter_op.allow_spinning", "0"),
		lib.try(slotCreateRunOptions, uintptr(unsafe.Pointer(&s.options))),
		lib.try(slotGetAllocatorWithDefaultOptions, uintptr(unsafe.Pointer(&s.allocator))),
		// OrtArenaAllocator = 1, OrtMemTypeDefault = 0
		lib.try(slotCreateCPUMemoryInfo, 1, 0, uintptr(unsafe.Pointer(&s.memory))),
	)
	if err == nil {
		err = s.useModestArena(env, options)
	}
	if err != nil {
		return nil, fmt.Errorf("set up ONNX Runtime: %w", err)
	}
	if err := lib.try(slotCreateSession, env, uintptr(unsafe.Pointer(cBytes(model))), options, uintptr(unsafe.Pointer(&s.handle))); err != nil {
		return nil, fmt.Errorf("load model %s: %w", model, err)
	}
	if s.in, err = s.ports(slotSessionGetInputCount, slotSessionGetInputName, slotSessionGetInputTypeInfo); err != nil {
		return nil, fmt.Errorf("load model %s: input %w", model, err)
	}
	if s.out, err = s.ports(slotSessionGetOutputCount, slotSessionGetOutputName, slotSessionGetOutputTypeInfo); err != nil {
		return nil, fmt.Errorf("load model %s: output %w", model, err)
	}
	return s, nil
}

// useModestArena makes the memory arena grow by what is asked for. By default
// it doubles, and after one allocation refused under a memory limit it goes on
// asking for the refused size, so that no later request succeeds.
func (s *session) useModestArena(env, options uintptr) error {
	keys := []*byte{cBytes("arena_extend_strategy")}
	values := []uintptr{1} // kSameAsRequested
	var arena uintptr
	err := s.lib.try(slotCreateArenaCfgV2, uintptr(unsafe.Pointer(unsafe.SliceData(keys))), uintptr(unsafe.Pointer(unsafe.SliceData(values))),
		uintptr(len(keys)), uintptr(unsafe.Pointer(&arena)))
	if err != nil {
		return err
	}
	defer s.lib.call(slotReleaseArenaCfg, arena)
	if err := s.lib.try(slotCreateAndRegisterAllocator, env, s.memory, arena); err != nil {
		return err
	}
	return s.setConfig(options, "session.use_env_allocators", "1")
}

func (s *session) setConfig(options uintptr, key, value string) error {
	return s.lib.try(slotAddSessionConfigEntry, options, uintptr(unsafe.Pointer(cBytes(key))), uintptr(unsafe.Pointer(cBytes(value))))
}

func (s *session) ports(count, name, info int) ([]port, error) {
	var n uintptr
	if err := s.lib.try(count, s.handle, uintptr(unsafe.Pointer(&n))); err != nil {
		return nil, fmt.Errorf("count: %w", err)
	}
	ports := make([]port, n)
	for i := range ports {
		p := &ports[i]
		if err := s.lib.try(name, s.handle, uintptr(i), s.allocator, uintptr(unsafe.Pointer(&p.name))); err != nil {
			return nil, fmt.Errorf("%d: name: %w", i, err)
		}
		p.Spec.Name = cText(p.name)
		var typeInfo uintptr
		if err := s.lib.try(info, s.handle, uintptr(i), uintptr(unsafe.Pointer(&typeInfo))); err != nil {
			return nil, fmt.Errorf("%q: type: %w", p.Spec.Name, err)
		}
		err := s.describe(p, typeInfo)
		s.lib.call(slotReleaseTypeInfo, typeInfo)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", p.Spec.Name, err)
		}
	}
	return ports, nil
}

func (s *session) describe(p *port, typeInfo uintptr) error {
	var kind int32
	if err := s.lib.try(slotGetOnnxTypeFromTypeInfo, typeInfo, uintptr(unsafe.Pointer(&kind))); err != nil {
		return err
	}
	if kind != onnxTypeTensor {
		text := valueKinds[0]
		if kind > 0 && int(kind) < len(valueKinds) {
			text = valueKinds[kind]
		}
		return fmt.Errorf("is %s; only tensors can be served", text)
	}
	var tensorInfo uintptr // owned by typeInfo
	if err := s.lib.try(slotCastTypeInfoToTensorInfo, typeInfo, uintptr(unsafe.Pointer(&tensorInfo))); err != nil {
		return err
	}
	shape, element, err := s.shapeOf(tensorInfo)
	if err != nil {
		return err
	}
	p.element = uintptr(element)
	if element <= 0 || int(element) >= len(elementTypes) || elementTypes[element] == "" {
		return fmt.Errorf("has ONNX element type %d, which has no Open Inference Protocol name", element)
	}
	p.Spec.DType = elementTypes[element]
	p.AnyShape = s.lib.call(slotTensorTypeAndShapeHasShape, tensorInfo)&0xff == 0
	for _, d := range shape {
		p.Spec.Shape = append(p.Spec.Shape, max(d, -1))
	}
	return nil
}

// shapeOf reads an OrtTensorTypeAndShapeInfo. The shape of a scalar is empty, not nil.
func (s *session) shapeOf(info uintptr) (shape []int64, element int32, err error) {
	var rank uintptr
	if err := s.lib.try(slotGetTensorElementType, info, uintptr(unsafe.Pointer(&element))); err != nil {
		return nil, 0, err
	}
	if err := s.lib.try(slotGetDimensionsCount, info, uintptr(unsafe.Pointer(&rank))); err != nil {
		return nil, 0, err
	}
	shape = make([]int64, rank)
	if rank == 0 {
		return shape, element, nil
	}
	return shape, element, s.lib.try(slotGetDimensions, info, uintptr(unsafe.Pointer(unsafe.SliceData(shape))), rank)
}

// infer runs the model once. Each wanted output is given to place, which
// returns the memory for size bytes of it.
func (s *session) infer(in []bound, outs []int, place func(port int, shape []int64, size int) ([]byte, error)) error {
	f := &s.run
	f.inNames, f.inValues, f.outNames, f.outValues = f.inNames[:0], f.inValues[:0], f.outNames[:0], f.outValues[:0]
	defer func() {
		for _, v := range append(f.inValues, f.outValues...) {
			if v != 0 {
				s.lib.call(slotReleaseValue, v)
			}
		}
	}()
	for i := range in {
		v, err := s.value(&in[i])
		if v != 0 {
			f.inValues = append(f.inValues, v)
		}
		if err != nil {
			return fmt.Errorf("input %q: %w", s.in[in[i].port].Spec.Name, err)
		}
		f.inNames = append(f.inNames, s.in[in[i].port].name)
	}
	for _, o := range outs {
		f.outNames = append(f.outNames, s.out[o].name)
		f.outValues = append(f.outValues, 0)
	}
	err := s.lib.try(slotRun, s.handle, s.options,
		address(f.inNames), address(f.inValues), uintptr(len(in)),
		address(f.outNames), uintptr(len(outs)), address(f.outValues))
	if err != nil {
		return err
	}
	for i, o := range outs {
		if f.outValues[i] == 0 {
			return fmt.Errorf("output %q: the model produced no value", s.out[o].Spec.Name)
		}
		if err := s.collect(o, f.outValues[i], place); err != nil {
			return fmt.Errorf("output %q: %w", s.out[o].Spec.Name, err)
		}
	}
	return nil
}

// address is the C view of a reused argument slice; the slices live in
// session.run, on the heap, for as long as the session.
func address(s []uintptr) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(s))) }

// value wraps the bytes of one input; only strings are copied.
func (s *session) value(b *bound) (v uintptr, err error) {
	p := &s.in[b.port]
	if p.Spec.DType != models.BYTES {
		err = s.lib.try(slotCreateTensorWithDataAsOrtValue, s.memory, uintptr(unsafe.Pointer(unsafe.SliceData(b.data))), uintptr(len(b.data)),
			uintptr(unsafe.Pointer(unsafe.SliceData(b.shape))), uintptr(len(b.shape)), p.element, uintptr(unsafe.Pointer(&v)))
		return v, err
	}
	if err = s.lib.try(slotCreateTensorAsOrtValue, s.allocator, uintptr(unsafe.Pointer(unsafe.SliceData(b.shape))), uintptr(len(b.shape)),
		p.element, uintptr(unsafe.Pointer(&v))); err != nil {
		return 0, err
	}
	for i, rest := 0, b.data; len(rest) >= 4; i++ {
		n := int(binary.LittleEndian.Uint32(rest))
		var buffer uintptr
		if err = s.lib.try(slotGetResizedStringTensorElementBuffer, v, uintptr(i), uintptr(n), uintptr(unsafe.Pointer(&buffer))); err != nil {
			return v, err
		}
		copy(unsafe.Slice((*byte)(pointer(buffer)), n), rest[4:4+n])
		rest = rest[4+n:]
	}
	return v, nil
}

func (s *session) collect(o int, v uintptr, place func(int, []int64, int) ([]byte, error)) error {
	var info uintptr
	if err := s.lib.try(slotGetTensorTypeAndShape, v, uintptr(unsafe.Pointer(&info))); err != nil {
		return err
	}
	shape, _, err := s.shapeOf(info)
	s.lib.call(slotReleaseTensorTypeAndShapeInfo, info)
	if err != nil {
		return err
	}
	count := 1
	for _, d := range shape {
		count *= int(d)
	}
	dtype := s.out[o].Spec.DType
	if dtype == models.BYTES {
		return s.collectText(o, v, shape, count, place)
	}
	size := count * dtype.Size()
	dst, err := place(o, shape, size)
	if err != nil || size == 0 {
		return err
	}
	var data uintptr
	if err := s.lib.try(slotGetTensorMutableData, v, uintptr(unsafe.Pointer(&data))); err != nil {
		return err
	}
	copy(dst, unsafe.Slice((*byte)(pointer(data)), size))
	return nil
}

func (s *session) collectText(o int, v uintptr, shape []int64, count int, place func(int, []int64, int) ([]byte, error)) error {
	var total uintptr
	if err := s.lib.try(slotGetStringTensorDataLength, v, uintptr(unsafe.Pointer(&total))); err != nil {
		return err
	}
	dst, err := place(o, shape, int(total)+4*count)
	if err != nil || count == 0 {
		return err
	}
	text := make([]byte, total+1) // +1: never a nil pointer
	starts := make([]uintptr, count)
	if err := s.lib.try(slotGetStringTensorContent, v, uintptr(unsafe.Pointer(unsafe.SliceData(text))), total,
		uintptr(unsafe.Pointer(unsafe.SliceData(starts))), uintptr(count)); err != nil {
		return err
	}
	for i, start := range starts {
		end := total
		if i+1 < count {
			end = starts[i+1]
		}
		binary.LittleEndian.PutUint32(dst, uint32(end-start))
		dst = dst[4+copy(dst[4:], text[start:end]):]
	}
	return nil
}

// terminate makes the running inference end at the next node of the graph;
// resume allows runs again. Safe to call while infer is running.
func (s *session) terminate() { _ = s.lib.try(slotRunOptionsSetTerminate, s.options) }
func (s *session) resume()    { _ = s.lib.try(slotRunOptionsUnsetTerminate, s.options) }

// close frees the model. A worker process does not bother: its end frees all.
func (s *session) close() { s.lib.call(slotReleaseSession, s.handle) }
