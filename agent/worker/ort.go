package worker

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/ebitengine/purego"
)

// ortAPIVersion is ORT_API_VERSION of the header that the slots below come
// from. ONNX Runtime 1.N implements API N and only appends to the table, so
// any library from minVersion on has every slot at the same place.
const (
	ortAPIVersion = 24
	minVersion    = "1.24"
)

// Positions of the functions in struct OrtApi (a table of pointers), from
// onnxruntime_c_api.h of ONNX Runtime 1.24: offsetof(OrtApi, F)/sizeof(void*).
const (
	slotGetErrorCode                        = 1
	slotGetErrorMessage                     = 2
	slotCreateEnv                           = 3
	slotCreateSession                       = 7
	slotRun                                 = 9
	slotCreateSessionOptions                = 10
	slotSetOptimizedModelFilePath           = 11
	slotSetSessionLogSeverityLevel          = 22
	slotSetSessionGraphOptimizationLevel    = 23
	slotSetIntraOpNumThreads                = 24
	slotSetInterOpNumThreads                = 25
	slotSessionGetInputCount                = 30
	slotSessionGetOutputCount               = 31
	slotSessionGetInputTypeInfo             = 33
	slotSessionGetOutputTypeInfo            = 34
	slotSessionGetInputName                 = 36
	slotSessionGetOutputName                = 37
	slotCreateRunOptions                    = 39
	slotRunOptionsSetTerminate              = 46
	slotRunOptionsUnsetTerminate            = 47
	slotCreateTensorAsOrtValue              = 48
	slotCreateTensorWithDataAsOrtValue      = 49
	slotGetTensorMutableData                = 51
	slotGetStringTensorDataLength           = 53
	slotGetStringTensorContent              = 54
	slotCastTypeInfoToTensorInfo            = 55
	slotGetOnnxTypeFromTypeInfo             = 56
	slotGetTensorElementType                = 60
	slotGetDimensionsCount                  = 61
	slotGetDimensions                       = 62
	slotGetTensorTypeAndShape               = 65
	slotCreateCPUMemoryInfo                 = 69
	slotGetAllocatorWithDefaultOptions      = 78
	slotReleaseStatus                       = 93
	slotReleaseSession                      = 95
	slotReleaseValue                        = 96
	slotReleaseTypeInfo                     = 98
	slotReleaseTensorTypeAndShapeInfo       = 99
	slotReleaseSessionOptions               = 100
	slotGetAvailableProviders               = 125
	slotReleaseAvailableProviders           = 126
	slotAddSessionConfigEntry               = 130
	slotCreateAndRegisterAllocator          = 144
	slotReleaseArenaCfg                     = 157
	slotCreateArenaCfgV2                    = 164
	slotAppendTensorRTV2                    = 170
	slotCreateTensorRTProviderOptions       = 171
	slotUpdateTensorRTProviderOptions       = 172
	slotReleaseTensorRTProviderOptions      = 174
	slotAppendCUDAV2                        = 204
	slotCreateCUDAProviderOptions           = 205
	slotUpdateCUDAProviderOptions           = 206
	slotReleaseCUDAProviderOptions          = 208
	slotAppendExecutionProvider             = 216
	slotGetResizedStringTensorElementBuffer = 252
	slotGetBuildInfoString                  = 254
	slotTensorTypeAndShapeHasShape          = 390
	slotCount                               = 391
)

// ortInvalidArgument is the one OrtErrorCode that is told apart.
const ortInvalidArgument = 2

// ortError is a status of the C API.
type ortError struct {
	code int
	text string
}

func (e *ortError) Error() string { return e.text }

// library is a loaded ONNX Runtime. It is never unloaded: its threads and
// static destructors do not survive dlclose.
type library struct {
	version string
	table   []uintptr // C memory: the functions of struct OrtApi
}

// pointer turns an address of C memory into a Go pointer. The detour keeps
// `go vet` quiet: the address was never a Go pointer, so the collector has no
// say in it.
func pointer(address uintptr) unsafe.Pointer {
	return *(*unsafe.Pointer)(unsafe.Pointer(&address))
}

// cText copies a NUL-terminated string of C memory.
func cText(address uintptr) string {
	if address == 0 {
		return ""
	}
	n := 0
	for *(*byte)(unsafe.Add(pointer(address), n)) != 0 {
		n++
	}
	return string(unsafe.Slice((*byte)(pointer(address)), n))
}

// cBytes returns s with the NUL that C expects.
func cBytes(s string) *byte {
	return unsafe.SliceData(append([]byte(s), 0))
}

func openLibrary(path string) (*library, error) {
	if path == "" {
		return nil, errors.New("load ONNX Runtime: no library path given; set it to a libonnxruntime.so.1 of version " + minVersion + " or newer")
	}
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("load ONNX Runtime %s: %w (needed: libonnxruntime.so.1 of version %s or newer for this processor)", path, err, minVersion)
	}
	entry, err := purego.Dlsym(handle, "OrtGetApiBase")
	if err != nil {
		return nil, fmt.Errorf("load ONNX Runtime %s: this is not an ONNX Runtime library: %w", path, err)
	}
	// struct OrtApiBase { const OrtApi* (*GetApi)(uint32_t); const char* (*GetVersionString)(void); }
	base, _, _ := purego.SyscallN(entry)
	functions := unsafe.Slice((*uintptr)(pointer(base)), 2)
	text, _, _ := purego.SyscallN(functions[1])
	version := cText(text)
	api, _, _ := purego.SyscallN(functions[0], ortAPIVersion)
	if api == 0 {
		return nil, fmt.Errorf("load ONNX Runtime %s: the library is version %s, needed is %s or newer; install a newer libonnxruntime.so.1", path, version, minVersion)
	}
	return &library{version: version, table: unsafe.Slice((*uintptr)(pointer(api)), slotCount)}, nil
}

// call runs a function of the table that returns no status.
//
//go:uintptrescapes
func (l *library) call(slot int, args ...uintptr) uintptr {
	r, _, _ := purego.SyscallN(l.table[slot], args...)
	return r
}

// try runs a function of the table that returns an OrtStatus.
//
//go:uintptrescapes
func (l *library) try(slot int, args ...uintptr) error {
	status, _, _ := purego.SyscallN(l.table[slot], args...)
	if status == 0 {
		return nil
	}
	code := int(int32(l.call(slotGetErrorCode, status)))
	text := cText(l.call(slotGetErrorMessage, status))
	l.call(slotReleaseStatus, status)
	if text == "" {
		text = fmt.Sprintf("ONNX Runtime error %d without a text", code)
	}
	return &ortError{code: code, text: text}
}
