package serve

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/edgeherd/edgeherd/agent/serve/oip"
	"github.com/edgeherd/edgeherd/models"
)

// grpcAPI answers all calls but those that carry tensors.
type grpcAPI struct {
	// For the two calls that carry tensors, which grpcService answers itself.
	oip.UnimplementedGRPCInferenceServiceServer
	s       *Server
	control bool // clients may load and unload models
}

// streamed wraps a ModelInferResponse as the field of that name of a
// ModelStreamInferResponse, and says that it is the last one to its request:
// clients of models that may give several wait for that.
func streamed(reply mem.BufferSlice) mem.BufferSlice {
	const inferResponse = 2
	const yes = "\x08\x01" // InferParameter with bool_param
	reply = append(reply, mem.SliceBuffer(appendEntry(nil, "triton_final_response", []byte(yes))))
	head := protowire.AppendVarint(protowire.AppendTag(nil, inferResponse, protowire.BytesType), uint64(reply.Len()))
	return append(mem.BufferSlice{mem.SliceBuffer(head)}, reply...)
}

func (a *grpcAPI) ServerLive(context.Context, *oip.ServerLiveRequest) (*oip.ServerLiveResponse, error) {
	return &oip.ServerLiveResponse{Live: true}, nil
}

func (a *grpcAPI) ServerReady(context.Context, *oip.ServerReadyRequest) (*oip.ServerReadyResponse, error) {
	return &oip.ServerReadyResponse{Ready: a.s.ready()}, nil
}

func (a *grpcAPI) ServerMetadata(context.Context, *oip.ServerMetadataRequest) (*oip.ServerMetadataResponse, error) {
	return &oip.ServerMetadataResponse{Name: serverName, Version: a.s.opts.Version, Extensions: extensions()}, nil
}

// ModelReady is false for a model that is not there, as in Triton.
func (a *grpcAPI) ModelReady(_ context.Context, r *oip.ModelReadyRequest) (*oip.ModelReadyResponse, error) {
	v, err := a.s.table.Load().find(r.Name, r.Version)
	if err != nil {
		return &oip.ModelReadyResponse{}, nil
	}
	ready, _ := v.ready()
	return &oip.ModelReadyResponse{Ready: ready}, nil
}

func (a *grpcAPI) ModelMetadata(_ context.Context, r *oip.ModelMetadataRequest) (*oip.ModelMetadataResponse, error) {
	meta, err := a.s.metadata(r.Name, r.Version)
	if err != nil {
		return nil, grpcError(err)
	}
	return &oip.ModelMetadataResponse{
		Name: meta.Name, Versions: meta.Versions, Platform: meta.Platform,
		Inputs: specs(meta.Inputs), Outputs: specs(meta.Outputs),
	}, nil
}

func specs(from []models.TensorSpec) []*oip.ModelMetadataResponse_TensorMetadata {
	var to []*oip.ModelMetadataResponse_TensorMetadata
	for _, t := range from {
		to = append(to, &oip.ModelMetadataResponse_TensorMetadata{Name: t.Name, Datatype: string(t.DType), Shape: t.Shape})
	}
	return to
}

func (a *grpcAPI) ModelConfig(_ context.Context, r *oip.ModelConfigRequest) (*oip.ModelConfigResponse, error) {
	c, err := a.s.config(r.Name, r.Version)
	if err != nil {
		return nil, grpcError(err)
	}
	return &oip.ModelConfigResponse{Config: c}, nil
}

func (a *grpcAPI) ModelStatistics(_ context.Context, r *oip.ModelStatisticsRequest) (*oip.ModelStatisticsResponse, error) {
	list, err := a.s.statistics(r.Name, r.Version)
	if err != nil {
		return nil, grpcError(err)
	}
	return &oip.ModelStatisticsResponse{ModelStats: list}, nil
}

func (a *grpcAPI) RepositoryIndex(_ context.Context, r *oip.RepositoryIndexRequest) (*oip.RepositoryIndexResponse, error) {
	out := &oip.RepositoryIndexResponse{}
	for _, e := range a.s.index(r.Ready) {
		out.Models = append(out.Models, &oip.RepositoryIndexResponse_ModelIndex{Name: e.Name, Version: e.Version, State: e.State, Reason: e.Reason})
	}
	return out, nil
}

func (a *grpcAPI) RepositoryModelLoad(ctx context.Context, r *oip.RepositoryModelLoadRequest) (*oip.RepositoryModelLoadResponse, error) {
	err := a.change(r.Parameters)
	if err == nil {
		err = a.s.loadModel(ctx, r.ModelName)
	}
	if err != nil {
		return nil, grpcError(err)
	}
	return &oip.RepositoryModelLoadResponse{}, nil
}

func (a *grpcAPI) RepositoryModelUnload(ctx context.Context, r *oip.RepositoryModelUnloadRequest) (*oip.RepositoryModelUnloadResponse, error) {
	err := a.change(r.Parameters)
	if err == nil {
		err = a.s.unloadModel(ctx, r.ModelName)
	}
	if err != nil {
		return nil, grpcError(err)
	}
	return &oip.RepositoryModelUnloadResponse{}, nil
}

// change says whether a client here may load and unload.
func (a *grpcAPI) change(parameters map[string]*oip.ModelRepositoryParameter) error {
	if !a.control {
		return errForbidden
	}
	return onlyKnown(parameters)
}

// grpcHealth is gRPC's own health check, which Kubernetes and others ask, as
// Triton answers it: the server is ready or not.
type grpcHealth struct {
	grpc_health_v1.UnimplementedHealthServer // Watch
	s                                        *Server
}

func (h *grpcHealth) Check(_ context.Context, r *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	if r.Service != "" && r.Service != oip.GRPCInferenceService_ServiceDesc.ServiceName {
		return nil, status.Errorf(codes.NotFound, "no service %.100q is here", r.Service)
	}
	if !h.s.ready() {
		return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_NOT_SERVING}, nil
	}
	return &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING}, nil
}

// unknownCall says of a call that is not here what to use instead, where there
// is something.
func unknownCall(_ any, stream grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(stream)
	if strings.Contains(method, "SharedMemory") {
		return status.Error(codes.Unimplemented, errSharedMemory.Error())
	}
	return status.Errorf(codes.Unimplemented, "nothing answers %.200s", method)
}
