package worker

import (
	"fmt"
	"slices"
	"unsafe"
)

// CPU is the execution provider that every ONNX Runtime has.
const CPU = "CPU"

// Provider is an execution provider of ONNX Runtime by its short name, such as
// CPU, CUDA, TensorRT, OpenVINO, QNN or XNNPACK, with its own options.
type Provider struct {
	Name    string            `json:"name" yaml:"name"`
	Options map[string]string `json:"options,omitempty" yaml:"options"`
}

// Runtime is the inventory of an ONNX Runtime library.
type Runtime struct {
	Version string `json:"version,omitempty"`
	Build   string `json:"build,omitempty"` // compiler flags and commit, as the library tells them
	// Available are the providers the library was built with, by ONNX Runtime's names.
	Available []string `json:"available,omitempty"`
	// Provider is the one in use, and Skipped tells why those before it are not.
	Provider string   `json:"provider,omitempty"`
	Skipped  []string `json:"skipped,omitempty"`
}

// inventory asks the library about itself.
func (l *library) inventory() (Runtime, error) {
	r := Runtime{Version: l.version, Build: cText(l.call(slotGetBuildInfoString))}
	var list uintptr
	var n int32
	if err := l.try(slotGetAvailableProviders, uintptr(unsafe.Pointer(&list)), uintptr(unsafe.Pointer(&n))); err != nil {
		return r, fmt.Errorf("list execution providers: %w", err)
	}
	for _, name := range unsafe.Slice((*uintptr)(pointer(list)), n) {
		r.Available = append(r.Available, cText(name))
	}
	return r, l.try(slotReleaseAvailableProviders, list, uintptr(n))
}

// has tells whether the library was built with a provider; ONNX Runtime lists
// CUDA as CUDAExecutionProvider.
func (r *Runtime) has(name string) bool {
	return slices.Contains(r.Available, name+"ExecutionProvider") || slices.Contains(r.Available, name)
}

// appendProvider adds a provider to the session's options.
func (s *session) appendProvider(options uintptr, p Provider) error {
	switch p.Name {
	case CPU:
		return nil // always there, last
	case "CUDA":
		return s.appendOpaque(options, p, opaque{slotCreateCUDAProviderOptions, slotUpdateCUDAProviderOptions, slotAppendCUDAV2, slotReleaseCUDAProviderOptions})
	case "TensorRT":
		return s.appendOpaque(options, p, opaque{slotCreateTensorRTProviderOptions, slotUpdateTensorRTProviderOptions, slotAppendTensorRTV2, slotReleaseTensorRTProviderOptions})
	}
	keys, values := pairs(p.Options)
	return s.lib.try(slotAppendExecutionProvider, options, uintptr(unsafe.Pointer(cBytes(p.Name))),
		uintptr(unsafe.Pointer(unsafe.SliceData(keys))), uintptr(unsafe.Pointer(unsafe.SliceData(values))), uintptr(len(p.Options)))
}

// opaque are the functions of a provider whose options are a C object.
type opaque struct{ create, update, add, release int }

func (s *session) appendOpaque(options uintptr, p Provider, f opaque) error {
	var own uintptr
	if err := s.lib.try(f.create, uintptr(unsafe.Pointer(&own))); err != nil {
		return err
	}
	defer s.lib.call(f.release, own)
	keys, values := pairs(p.Options)
	if len(p.Options) > 0 {
		if err := s.lib.try(f.update, own, uintptr(unsafe.Pointer(unsafe.SliceData(keys))), uintptr(unsafe.Pointer(unsafe.SliceData(values))), uintptr(len(p.Options))); err != nil {
			return err
		}
	}
	return s.lib.try(f.add, options, own)
}

// pairs are C strings of the keys and values, and never nil.
func pairs(m map[string]string) (keys, values []*byte) {
	keys, values = make([]*byte, 0, len(m)+1), make([]*byte, 0, len(m)+1)
	for k, v := range m {
		keys, values = append(keys, cBytes(k)), append(values, cBytes(v))
	}
	return keys, values
}
