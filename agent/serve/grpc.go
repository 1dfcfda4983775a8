package serve

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/proto"

	"github.com/edgeherd/edgeherd/agent/backend"
	"github.com/edgeherd/edgeherd/agent/serve/oip"
	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

const (
	inferMethod  = "/inference.GRPCInferenceService/ModelInfer"
	streamMethod = "/inference.GRPCInferenceService/ModelStreamInfer"
	// grpcReserve is what a call may hold before its length is known: gRPC
	// tells it with the first byte of the message, after the admission.
	grpcReserve = 64 << 10
	// maxStreams bounds the calls under way on one connection.
	maxStreams = 1024
)

// grpcServer is the Open Inference Protocol over gRPC.
type grpcServer struct {
	*grpc.Server
	net.Listener
}

// newGRPC returns a server for one listener; control lets its clients load and
// unload models.
func (s *Server) newGRPC(l net.Listener, control bool) *grpcServer {
	limit := min(s.opts.MaxBodyBytes+grpcReserve, math.MaxInt32)
	srv := grpc.NewServer(
		grpc.ForceServerCodecV2(codec{}),
		grpc.MaxRecvMsgSize(int(limit)),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.ConnectionTimeout(headerTimeout),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: idleTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.InTapHandle(s.tap),
		grpc.UnknownServiceHandler(unknownCall),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
			defer caught(s.log, &err)
			return next(ctx, req)
		}),
		grpc.StreamInterceptor(func(api any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
			defer caught(s.log, &err)
			return next(api, stream)
		}),
	)
	srv.RegisterService(s.grpcService(), &grpcAPI{s: s, control: control})
	grpc_health_v1.RegisterHealthServer(srv, &grpcHealth{s: s})
	reflection.Register(srv) // tools then need no file of the protocol
	return &grpcServer{srv, &arrivals{Listener: l, gate: &s.gate, max: limit, slow: s.opts.messageTime()}}
}

// grpcService is the generated service, but that ModelInfer is handled as a
// stream of one message: so it is admitted before the message is read.
func (s *Server) grpcService() *grpc.ServiceDesc {
	desc := oip.GRPCInferenceService_ServiceDesc
	var unary []grpc.MethodDesc
	for _, m := range desc.Methods {
		if m.MethodName != "ModelInfer" {
			unary = append(unary, m)
		}
	}
	desc.Methods = unary
	desc.Streams = []grpc.StreamDesc{
		{StreamName: "ModelInfer", Handler: s.grpcInfer, ServerStreams: true, ClientStreams: true},
		{StreamName: "ModelStreamInfer", Handler: s.grpcStream, ServerStreams: true, ClientStreams: true},
	}
	return &desc
}

// tap sees a call when its headers have come. A client that then sends its
// message slowly, or never, must not keep its place for ever.
func (s *Server) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	limit := s.opts.Timeout
	switch info.FullMethodName {
	case inferMethod:
		if s.gate.full() && (len(s.routesNow()) == 0 || s.spill.full()) {
			return nil, grpcError(overload())
		}
	case streamMethod:
		// It lasts as long as its client likes, but there are not more of them
		// than requests under way, and grpcNext ends one that does not read.
		if s.streams.Add(1) > s.gate.maxRequests {
			s.streams.Add(-1)
			s.gate.shed.Add(1)
			return nil, grpcError(overload())
		}
		ctx, cancel := context.WithCancel(ctx)
		context.AfterFunc(ctx, func() { s.streams.Add(-1) })
		return context.WithValue(ctx, streamEnd{}, cancel), nil
	default:
		limit = max(limit, controlTimeout)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	context.AfterFunc(ctx, cancel) // the transport ends ctx's parent with the call
	return ctx, nil
}

// controlTimeout bounds calls other than inference; loading a model is one.
const controlTimeout = 10 * time.Minute

// streamEnd is the key of the function that ends a stream.
type streamEnd struct{}

// serve answers until ctx ends and calls under way are done.
func (g *grpcServer) serve(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- g.Server.Serve(g.Listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve gRPC on %s: %w", g.Addr(), err)
	case <-ctx.Done():
	}
	late := time.AfterFunc(shutdownGrace, g.Stop)
	defer late.Stop()
	g.GracefulStop()
	<-ended
	return nil
}

// codec hands the messages of inference through as bytes, so that tensors are
// not copied, and lets protobuf do all others.
type codec struct{}

func (codec) Name() string { return "proto" }

// inbound is a ModelInferRequest as it came.
type inbound struct{ buf mem.Buffer }

func (m *inbound) free() {
	if m.buf != nil {
		m.buf.Free()
		m.buf = nil
	}
}

// outbound is a serialised answer in pieces.
type outbound struct{ pieces mem.BufferSlice }

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	if in, ok := v.(*inbound); ok {
		in.buf = data.MaterializeToBuffer(mem.DefaultBufferPool())
		return nil
	}
	msg, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("read message: %T is no protobuf message", v)
	}
	return proto.Unmarshal(data.Materialize(), msg)
}

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	if out, ok := v.(*outbound); ok {
		return out.pieces, nil
	}
	msg, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("write message: %T is no protobuf message", v)
	}
	b, err := proto.Marshal(msg)
	return mem.BufferSlice{mem.SliceBuffer(b)}, err
}

// grpcInfer is ModelInfer.
func (s *Server) grpcInfer(_ any, stream grpc.ServerStream) error {
	began := time.Now()
	in, err := s.enterGRPC(stream.Context())
	if err != nil {
		stream.SetTrailer(metadata.Pairs("grpc-retry-pushback-ms", "1000"))
		return grpcError(err)
	}
	defer in.leave()
	var msg inbound
	if err := stream.RecvMsg(&msg); err != nil {
		return grpcError(readFault(stream.Context(), err))
	}
	defer msg.free()
	if emptied(stream.Context(), msg) {
		return grpcError(overload())
	}
	ref, c, outs, err := s.grpcCall(stream.Context(), in, msg.buf.ReadOnlyData(), began)
	if err != nil {
		return grpcError(err)
	}
	return stream.SendMsg(&outbound{replyPieces(ref, c, outs)})
}

// enterGRPC admits a call before its message is read. Which model it is about
// is in the message: where any may overflow, this one may.
func (s *Server) enterGRPC(ctx context.Context) (in admitted, err error) {
	in.forwarded = len(metadata.ValueFromIncomingContext(ctx, backend.HeaderForwarded)) > 0
	in.ticket, in.away, err = s.enter(grpcReserve, len(s.routesNow()) > 0 && !in.forwarded)
	return in, err
}

// readFault is the reason why no message came.
func readFault(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("read request: %w", context.Cause(ctx))
	}
	return err
}

// grpcCall runs the inference that a message asks for. The call is returned as
// far as it was read, also with an error.
func (s *Server) grpcCall(ctx context.Context, in admitted, msg []byte, began time.Time) (ref models.Ref, c *call, outs []worker.Tensor, err error) {
	ticket := in.ticket
	d := grpcDecoder{reserve: ticket.grow}
	if err := ticket.grow(max(int64(len(msg))-grpcReserve, 0)); err != nil {
		return ref, &d.call, nil, err
	}
	if err := d.decode(msg); err != nil {
		return ref, &d.call, nil, err
	}
	v, release, err := s.take(d.call.model, d.call.version, in.forwarded)
	if err != nil {
		return ref, &d.call, nil, err
	}
	defer release()
	d.call.reserve, d.call.forwarded, d.call.away = ticket.grow, in.forwarded, in.away
	if err = d.call.decodeImages(v.signature(), ticket.grow); err == nil {
		outs, err = s.answer(ctx, v, &d.call, began)
	}
	if !d.call.elsewhere {
		v.stats.record(time.Since(began), err, s.opts.WallClock())
	}
	return d.call.answeredBy(v), &d.call, outs, err
}

// grpcStream is ModelStreamInfer: requests one after the other, each with its
// answer or its error.
func (s *Server) grpcStream(_ any, stream grpc.ServerStream) error {
	for {
		var in inbound
		if err := stream.RecvMsg(&in); err != nil {
			if stream.Context().Err() == nil {
				return nil // the client has sent all
			}
			return grpcError(readFault(stream.Context(), err))
		}
		if emptied(stream.Context(), in) {
			in.free()
			return grpcError(overload()) // what follows is the rest of that message
		}
		err := s.grpcNext(stream, &in)
		in.free()
		if err != nil {
			return err
		}
	}
}

func (s *Server) grpcNext(stream grpc.ServerStream, in *inbound) error {
	if end, ok := stream.Context().Value(streamEnd{}).(context.CancelFunc); ok {
		// Twice: the inference may take it once, the client's reading as well.
		defer time.AfterFunc(2*s.opts.Timeout, end).Stop()
	}
	admitted, err := s.enterGRPC(stream.Context())
	var pieces mem.BufferSlice
	c := &call{}
	if err == nil {
		defer admitted.leave()
		var ref models.Ref
		var outs []worker.Tensor
		ref, c, outs, err = s.grpcCall(stream.Context(), admitted, in.buf.ReadOnlyData(), time.Now())
		if err == nil {
			pieces = replyPieces(ref, c, outs)
		}
	}
	if err != nil {
		// The id tells which of several requests has failed.
		return stream.SendMsg(&oip.ModelStreamInferResponse{ErrorMessage: err.Error(), InferResponse: &oip.ModelInferResponse{Id: c.id}})
	}
	return stream.SendMsg(&outbound{streamed(pieces)})
}

// replyPieces is the answer as pieces that alias the outputs.
func replyPieces(ref models.Ref, c *call, outs []worker.Tensor) mem.BufferSlice {
	var pieces mem.BufferSlice
	for i, lead := range appendReply(ref, c, outs) {
		pieces = append(pieces, mem.SliceBuffer(lead))
		if i < len(outs) && len(outs[i].Data) > 0 {
			pieces = append(pieces, mem.SliceBuffer(outs[i].Data))
		}
	}
	return pieces
}

// grpcCode maps the status of a fault to gRPC.
func grpcCode(status int) codes.Code {
	switch status {
	case http.StatusBadRequest:
		return codes.InvalidArgument
	case http.StatusNotFound:
		return codes.NotFound
	case http.StatusForbidden:
		return codes.PermissionDenied
	case http.StatusRequestEntityTooLarge:
		return codes.ResourceExhausted
	case http.StatusServiceUnavailable:
		return codes.Unavailable
	case http.StatusGatewayTimeout:
		return codes.DeadlineExceeded
	case statusClientGone:
		return codes.Canceled
	}
	return codes.Internal
}

func grpcError(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	return status.Error(grpcCode(statusOf(err)), err.Error())
}
