package worker

import (
	"errors"
	"fmt"
	"strings"
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

// session is one loaded model. Not safe for concurrent use, except terminate.
type session struct {
	lib       *library
	handle    uintptr
	memory    uintptr
	allocator uintptr
	options   uintptr // OrtRunOptions
	in, out   []port
}

// sessionSpec is what a session is made of.
type sessionSpec struct {
	model, graph, saveGraph string
	threads                 int
}

// openSession loads the model with the first provider that takes it. The
// runtime is told which that is, and why not the ones before it.
func openSession(lib *library, spec sessionSpec, providers []Provider, runtime *Runtime) (*session, error) {
	var env uintptr
	// Severity 3 is ERROR: warnings about the graph would fill the journal of a box.
	if err := lib.try(slotCreateEnv, 3, uintptr(unsafe.Pointer(cBytes("edgeherd"))), uintptr(unsafe.Pointer(&env))); err != nil {
		return nil, fmt.Errorf("start ONNX Runtime: %w", err)
	}
	for i, p := range providers {
		var s *session
		err := fmt.Errorf("the library was built without it; it has %s", strings.Join(runtime.Available, ", "))
		if runtime.has(p.Name) {
			s, err = newSession(lib, env, spec, p)
		}
		if err == nil {
			runtime.Provider = p.Name
			return s, nil
		}
		if i == len(providers)-1 {
			if len(providers) > 1 {
				err = fmt.Errorf("%w (providers before it: %s)", err, strings.Join(runtime.Skipped, "; "))
			}
			return nil, fmt.Errorf("load model %s with provider %s: %w", spec.model, p.Name, err)
		}
		runtime.Skipped = append(runtime.Skipped, fmt.Sprintf("%s: %v", p.Name, err))
	}
	return nil, errors.New("load model: no execution provider is configured")
}

// ONNX Runtime's GraphOptimizationLevel.
const (
	optimiseNothing = 0
	optimiseAll     = 99
)

func newSession(lib *library, env uintptr, spec sessionSpec, p Provider) (*session, error) {
	s := &session{lib: lib}
	var options uintptr
	if err := lib.try(slotCreateSessionOptions, uintptr(unsafe.Pointer(&options))); err != nil {
		return nil, fmt.Errorf("start ONNX Runtime: %w", err)
	}
	defer lib.call(slotReleaseSessionOptions, options)
	model, level := spec.model, uintptr(optimiseAll)
	if spec.graph != "" {
		model, level = spec.graph, optimiseNothing
	}
	err := errors.Join(
		lib.try(slotSetSessionLogSeverityLevel, options, 3),
		lib.try(slotSetIntraOpNumThreads, options, uintptr(spec.threads)),
		lib.try(slotSetInterOpNumThreads, options, 1),
		lib.try(slotSetSessionGraphOptimizationLevel, options, level),
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
	if err == nil {
		err = s.appendProvider(options, p)
	}
	if err == nil && spec.saveGraph != "" && spec.graph == "" {
		err = lib.try(slotSetOptimizedModelFilePath, options, uintptr(unsafe.Pointer(cBytes(spec.saveGraph))))
	}
	if err != nil {
		return nil, fmt.Errorf("set up ONNX Runtime: %w", err)
	}
	if err := lib.try(slotCreateSession, env, uintptr(unsafe.Pointer(cBytes(model))), options, uintptr(unsafe.Pointer(&s.handle))); err != nil {
		return nil, err
	}
	if s.in, err = s.ports(slotSessionGetInputCount, slotSessionGetInputName, slotSessionGetInputTypeInfo); err != nil {
		return nil, fmt.Errorf("input %w", err)
	}
	if s.out, err = s.ports(slotSessionGetOutputCount, slotSessionGetOutputName, slotSessionGetOutputTypeInfo); err != nil {
		return nil, fmt.Errorf("output %w", err)
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

// terminate makes the running inference end at the next node of the graph;
// resume allows runs again. Safe to call while infer is running.
func (s *session) terminate() { _ = s.lib.try(slotRunOptionsSetTerminate, s.options) }
func (s *session) resume()    { _ = s.lib.try(slotRunOptionsUnsetTerminate, s.options) }
