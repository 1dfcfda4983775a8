package serve

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/edgeherd/edgeherd/agent/serve/oip"
	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/agent/worker/onnxtest"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/models"
)

// overGRPC is a generated client on the unix socket.
func (b *box) overGRPC() oip.GRPCInferenceServiceClient {
	b.t.Helper()
	conn, err := grpc.NewClient("unix:"+b.socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	return oip.NewGRPCInferenceServiceClient(conn)
}

// grpcRequest has every tensor in raw_input_contents.
func grpcRequest(model string, in []worker.Tensor, outputs []string) *oip.ModelInferRequest {
	r := &oip.ModelInferRequest{ModelName: model}
	for _, t := range in {
		r.Inputs = append(r.Inputs, &oip.ModelInferRequest_InferInputTensor{Name: t.Name, Datatype: string(t.DType), Shape: t.Shape})
		r.RawInputContents = append(r.RawInputContents, t.Data)
	}
	for _, name := range outputs {
		r.Outputs = append(r.Outputs, &oip.ModelInferRequest_InferRequestedOutputTensor{Name: name})
	}
	return r
}

// grpcTensors puts the outputs of a response together.
func grpcTensors(r *oip.ModelInferResponse) ([]worker.Tensor, error) {
	if len(r.Outputs) != len(r.RawOutputContents) {
		return nil, fmt.Errorf("%d outputs with %d contents", len(r.Outputs), len(r.RawOutputContents))
	}
	var out []worker.Tensor
	for i, o := range r.Outputs {
		shape := o.Shape
		if shape == nil {
			shape = []int64{}
		}
		out = append(out, worker.Tensor{Name: o.Name, DType: models.DType(o.Datatype), Shape: shape, Data: r.RawOutputContents[i]})
	}
	return out, nil
}

// grpcRemote is a model behind the server, reached by gRPC.
type grpcRemote struct {
	*remote
	client oip.GRPCInferenceServiceClient
}

func (r grpcRemote) Infer(ctx context.Context, in []worker.Tensor, outputs []string) ([]worker.Tensor, error) {
	got, err := r.client.ModelInfer(ctx, grpcRequest(r.v.ref.Name, in, outputs))
	if err != nil {
		return nil, err
	}
	return grpcTensors(got)
}

// TestConformsToONNXOverGRPC is the conformance test of HTTP over gRPC, with
// messages written and read by generated code.
func TestConformsToONNXOverGRPC(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a thousand processes")
	}
	cases := someCases(t)
	b := newBox(t, nil)
	client := b.overGRPC()
	var n atomic.Int64
	onnxtest.Suite(t, cases, runtime.GOMAXPROCS(0), func(ctx context.Context, model string) (onnxtest.Session, error) {
		s, err := b.serveFile(ctx, fmt.Sprintf("case-%d", n.Add(1)), model)
		if err != nil {
			return nil, err // not s: a nil *remote is no nil Session
		}
		return grpcRemote{s, client}, nil
	})
}

// TestGRPCAnswersLikeHTTP compares both forms of the protocol on one model,
// and raw with typed contents.
func TestGRPCAnswersLikeHTTP(t *testing.T) {
	b := newBox(t, nil)
	b.ready(b.demo("silero-vad-5.0.0", "vad", "5"))
	client := b.overGRPC()
	body, header := binaryRequest(voice())
	want := b.post("/v2/models/vad/infer", body, HeaderLength, header)
	check := func(form string, r *oip.ModelInferRequest, opts ...grpc.CallOption) {
		t.Helper()
		got, err := client.ModelInfer(t.Context(), r, opts...)
		if err != nil {
			t.Fatalf("%s: %v", form, err)
		}
		if got.ModelName != "vad" || got.ModelVersion != "5" || got.Id != r.Id {
			t.Errorf("%s: answer of %s version %s with id %q", form, got.ModelName, got.ModelVersion, got.Id)
		}
		outs, err := grpcTensors(got)
		if err != nil || len(outs) != len(want.Outputs) {
			t.Fatalf("%s: %d outputs, %v", form, len(outs), err)
		}
		for i, o := range outs {
			if w := want.Outputs[i]; o.Name != w.Name || fmt.Sprint(o.Shape) != fmt.Sprint(w.Shape) || !bytes.Equal(o.Data, w.raw) {
				t.Errorf("%s: output %d differs from HTTP", form, i)
			}
		}
	}
	raw := grpcRequest("vad", voice(), nil)
	raw.Id = "one"
	check("raw", raw)
	check("raw, compressed", raw, grpc.UseCompressor(gzip.Name))
	typed := grpcRequest("vad", voice(), nil)
	typed.RawInputContents = nil
	for i, in := range voice() {
		values, err := numbers(&in)
		if err != nil {
			t.Fatal(err)
		}
		c := &oip.InferTensorContents{}
		for _, v := range values {
			if in.DType == models.INT64 {
				c.Int64Contents = append(c.Int64Contents, int64(v))
			} else {
				c.Fp32Contents = append(c.Fp32Contents, float32(v))
			}
		}
		typed.Inputs[i].Contents = c
	}
	check("typed", typed)

	stream, err := client.ModelStreamInfer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	nobody := grpcRequest("nobody", nil, nil)
	nobody.Id = "two"
	for i, r := range []*oip.ModelInferRequest{raw, nobody, raw} {
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
		got, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if failed := got.ErrorMessage != ""; failed != (i == 1) || got.InferResponse.GetId() != r.Id ||
			got.InferResponse.Parameters["triton_final_response"].GetBoolParam() == failed {
			t.Errorf("stream, request %d: error %q, %v", i, got.ErrorMessage, got.InferResponse)
		} else if !failed && (len(got.InferResponse.RawOutputContents) != 2 || !bytes.Equal(got.InferResponse.RawOutputContents[0], want.Outputs[0].raw)) {
			t.Errorf("stream, request %d differs from HTTP", i)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err == nil || status.Code(err) != codes.Unknown && err.Error() != "EOF" {
		t.Errorf("after the last request: %v", err)
	}
}

// TestGRPCFaultsHaveCodes checks what clients branch on.
// TestGRPCAnswersEveryCallOfTheProtocol: none is left to the generated stub,
// which says Unimplemented.
func TestGRPCAnswersEveryCallOfTheProtocol(t *testing.T) {
	b := newBox(t, nil)
	conn, err := grpc.NewClient("unix:"+b.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	calls := []string{"NoSuchCall", "SystemSharedMemoryRegister"} // which must be missed, or this test sees nothing
	for _, m := range oip.GRPCInferenceService_ServiceDesc.Methods {
		calls = append(calls, m.MethodName)
	}
	for _, s := range oip.GRPCInferenceService_ServiceDesc.Streams {
		calls = append(calls, s.StreamName)
	}
	for i, name := range calls {
		path := "/" + oip.GRPCInferenceService_ServiceDesc.ServiceName + "/" + name
		stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, path)
		if err != nil {
			t.Fatal(err)
		}
		// Every request may be empty; why one was not taken comes with the answer.
		_, _ = stream.SendMsg(&oip.ServerLiveRequest{}), stream.CloseSend()
		err = stream.RecvMsg(&oip.ServerLiveResponse{})
		if missing := status.Code(err) == codes.Unimplemented; missing != (i < 2) {
			t.Errorf("%s: %v", name, err)
		}
		if i == 1 && !strings.Contains(err.Error(), "send the tensors") {
			t.Errorf("%s does not say what to do instead: %v", name, err)
		}
	}
	health := grpc_health_v1.NewHealthClient(conn)
	check := func(service string, code codes.Code, want grpc_health_v1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		got, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
		if status.Code(err) != code || got.GetStatus() != want {
			t.Errorf("health of %q: %v, %v", service, got, err)
		}
	}
	b.eventually("the server has looked at active.json", b.s.looked.Load)
	check("", codes.OK, grpc_health_v1.HealthCheckResponse_SERVING)
	check("inference.GRPCInferenceService", codes.OK, grpc_health_v1.HealthCheckResponse_SERVING)
	check("cat", codes.NotFound, grpc_health_v1.HealthCheckResponse_UNKNOWN)
	b.activate(models.Ref{Name: "cat", Version: "1", Digest: blob.Sum(nil)}) // which nobody has
	check("", codes.OK, grpc_health_v1.HealthCheckResponse_NOT_SERVING)
}

func TestGRPCFaultsHaveCodes(t *testing.T) {
	b := newBox(t, nil)
	b.ready(b.demo("silero-vad-5.0.0", "vad", "5"))
	client := b.overGRPC()
	change := func(f func(r *oip.ModelInferRequest)) *oip.ModelInferRequest {
		r := grpcRequest("vad", voice(), nil)
		f(r)
		return r
	}
	for _, tc := range []struct {
		name string
		r    *oip.ModelInferRequest
		code codes.Code
		want string
	}{
		{"unknown model", change(func(r *oip.ModelInferRequest) { r.ModelName = "x" }), codes.NotFound, `no model "x"`},
		{"unknown version", change(func(r *oip.ModelInferRequest) { r.ModelVersion = "9" }), codes.NotFound, `no version "9"`},
		{"raw for some inputs", change(func(r *oip.ModelInferRequest) { r.RawInputContents = r.RawInputContents[:1] }), codes.InvalidArgument, "1 raw_input_contents for 3 inputs"},
		{"both forms", change(func(r *oip.ModelInferRequest) { r.Inputs[0].Contents = &oip.InferTensorContents{} }), codes.InvalidArgument, "contents beside raw"},
		{"negative dimension", change(func(r *oip.ModelInferRequest) { r.Inputs[0].Shape[0] = -1 }), codes.InvalidArgument, "negative"},
		{"dimensions beyond memory", change(func(r *oip.ModelInferRequest) { r.Inputs[0].Shape = []int64{1 << 40, 1 << 40} }), codes.InvalidArgument, "beyond all memory"},
		{"short data", change(func(r *oip.ModelInferRequest) { r.RawInputContents[0] = r.RawInputContents[0][:4] }), codes.InvalidArgument, "4 bytes, wanted 2048"},
		{"unknown type", change(func(r *oip.ModelInferRequest) { r.Inputs[0].Datatype = "FP8" }), codes.InvalidArgument, `unknown datatype "FP8"`},
		{"wrong contents", change(func(r *oip.ModelInferRequest) {
			r.RawInputContents = nil
			r.Inputs[0].Contents = &oip.InferTensorContents{IntContents: []int32{1}}
		}), codes.InvalidArgument, "FP32 belongs into field 6"},
		{"unknown output", change(func(r *oip.ModelInferRequest) {
			r.Outputs = []*oip.ModelInferRequest_InferRequestedOutputTensor{{Name: "z"}}
		}), codes.InvalidArgument, `no output "z"`},
		{"timeout that is no number", change(func(r *oip.ModelInferRequest) {
			r.Parameters = map[string]*oip.InferParameter{"timeout": {ParameterChoice: &oip.InferParameter_StringParam{StringParam: "soon"}}}
		}), codes.InvalidArgument, `"timeout" is not an integer`},
		{"timeout that is over", change(func(r *oip.ModelInferRequest) {
			r.Parameters = map[string]*oip.InferParameter{"timeout": {ParameterChoice: &oip.InferParameter_Int64Param{Int64Param: 1}}}
		}), codes.DeadlineExceeded, "abandoned"},
	} {
		_, err := client.ModelInfer(t.Context(), tc.r)
		if status.Code(err) != tc.code || !strings.Contains(status.Convert(err).Message(), tc.want) {
			t.Errorf("%s: got %v, want %s with %q", tc.name, err, tc.code, tc.want)
		}
	}
	ready, err := client.ModelReady(t.Context(), &oip.ModelReadyRequest{Name: "vad"})
	if err != nil || !ready.Ready {
		t.Errorf("ready: %v, %v", ready, err)
	}
	meta, err := client.ModelMetadata(t.Context(), &oip.ModelMetadataRequest{Name: "vad", Version: "5"})
	if err != nil || meta.Platform != platform || len(meta.Inputs) != 3 || fmt.Sprint(meta.Inputs[1].Shape) != "[2 -1 128]" {
		t.Errorf("metadata: %v, %v", meta, err)
	}
}

// TestGRPCGivesUpAClientThatSendsNothing holds a place open with headers only.
func TestGRPCGivesUpAClientThatSendsNothing(t *testing.T) {
	b := newBox(t, func(o *Options) { o.Timeout = 50 * time.Millisecond })
	b.ready(b.demo("silero-vad-5.0.0", "vad", "5"))
	conn, err := grpc.NewClient("unix:"+b.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, inferMethod)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(new(oip.ModelInferResponse)); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v, want DeadlineExceeded", err)
	}
	b.eventually("the place is free again", func() bool { return b.s.gate.requests.Load() == 0 })
}
