package serve

import (
	"net/http"

	"github.com/edgeherd/edgeherd/agent/serve/oip"
	"github.com/edgeherd/edgeherd/models"
)

// Configuration and statistics of models, by Triton's extensions. The messages
// are those of gRPC; REST writes the same fields as JSON.

// dataTypes are Triton's names and numbers.
func dataType(t models.DType) oip.DataType {
	if t == models.BYTES {
		return oip.DataType_TYPE_STRING
	}
	return oip.DataType(oip.DataType_value["TYPE_"+string(t)])
}

// config describes one version. Dimensions are all of the model's, so
// max_batch_size is 0: there is no implicit batch dimension.
func (s *Server) config(name, number string) (*oip.ModelConfig, error) {
	v, err := s.table.Load().find(name, number)
	if err != nil {
		return nil, err
	}
	c := &oip.ModelConfig{Name: v.ref.Name, Platform: v.platform(), Backend: "onnxruntime"}
	if v.ext != nil {
		c.Backend = v.ext.config.Name
	}
	sig := v.signature()
	for _, t := range sig.Inputs {
		c.Input = append(c.Input, &oip.ModelInput{Name: t.Name, DataType: dataType(t.DType), Dims: t.Shape})
	}
	for _, t := range sig.Outputs {
		c.Output = append(c.Output, &oip.ModelOutput{Name: t.Name, DataType: dataType(t.DType), Dims: t.Shape})
	}
	if b := v.queue.plan(); b.MaxItems > 1 {
		c.DynamicBatching = &oip.ModelDynamicBatching{PreferredBatchSize: []int32{int32(b.MaxItems)}}
	}
	return c, nil
}

// getConfig writes the fields that the message names, numbers as numbers.
func (s *Server) getConfig(w http.ResponseWriter, r *http.Request) {
	c, err := s.config(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		writeError(w, err)
		return
	}
	type tensor struct {
		Name     string  `json:"name"`
		DataType string  `json:"data_type"`
		Dims     []int64 `json:"dims"`
	}
	type batching struct {
		Preferred []int32 `json:"preferred_batch_size"`
		Delay     uint64  `json:"max_queue_delay_microseconds"`
	}
	out := struct {
		Name     string    `json:"name"`
		Platform string    `json:"platform"`
		Backend  string    `json:"backend"`
		MaxBatch int32     `json:"max_batch_size"`
		Input    []tensor  `json:"input"`
		Output   []tensor  `json:"output"`
		Batching *batching `json:"dynamic_batching,omitempty"`
	}{Name: c.Name, Platform: c.Platform, Backend: c.Backend, Input: []tensor{}, Output: []tensor{}}
	for _, t := range c.Input {
		out.Input = append(out.Input, tensor{t.Name, t.DataType.String(), append([]int64{}, t.Dims...)})
	}
	for _, t := range c.Output {
		out.Output = append(out.Output, tensor{t.Name, t.DataType.String(), append([]int64{}, t.Dims...)})
	}
	if b := c.DynamicBatching; b != nil {
		out.Batching = &batching{b.PreferredBatchSize, b.MaxQueueDelayMicroseconds}
	}
	writeJSON(w, http.StatusOK, out)
}

// statistics are those of one version, of all versions of a model, or of all
// models when name is empty; by name and version.
func (s *Server) statistics(name, number string) ([]*oip.ModelStatistics, error) {
	t := s.table.Load()
	var list []*oip.ModelStatistics
	if number != "" || name != "" && len(t.models[name]) == 0 {
		v, err := t.find(name, number)
		if err != nil {
			return nil, err
		}
		return append(list, v.statistics()), nil
	}
	for _, v := range s.known() {
		if t.serves(v) && (name == "" || v.ref.Name == name) {
			list = append(list, v.statistics())
		}
	}
	return list, nil
}

func (v *version) statistics() *oip.ModelStatistics {
	c := v.stats.read()
	of := func(t tally) *oip.StatisticDuration {
		return &oip.StatisticDuration{Count: t.count, Ns: uint64(t.took.Nanoseconds())}
	}
	failed := c.failure
	failed.count += c.refused
	m := &oip.ModelStatistics{
		Name: v.ref.Name, Version: v.ref.Version, InferenceCount: c.items, ExecutionCount: c.executions,
		InferenceStats: &oip.InferStatistics{
			Success: of(c.success), Fail: of(failed), Queue: of(c.queue),
			ComputeInput: of(c.input), ComputeInfer: of(c.infer), ComputeOutput: of(c.output),
			CacheHit: of(tally{}), CacheMiss: of(tally{}),
		},
	}
	if !c.last.IsZero() {
		m.LastInference = uint64(c.last.UnixMilli())
	}
	for _, b := range c.batches {
		m.BatchStats = append(m.BatchStats, &oip.InferBatchStatistics{
			BatchSize: b.items, ComputeInput: of(b.input), ComputeInfer: of(b.infer), ComputeOutput: of(b.output),
		})
	}
	return m
}

// duration is a StatisticDuration in JSON.
type duration struct {
	Count uint64 `json:"count"`
	Ns    uint64 `json:"ns"`
}

func asDuration(d *oip.StatisticDuration) duration { return duration{d.Count, d.Ns} }

// modelStats is a ModelStatistics in JSON.
type modelStats struct {
	Name       string              `json:"name"`
	Version    string              `json:"version"`
	Last       uint64              `json:"last_inference"`
	Inferences uint64              `json:"inference_count"`
	Executions uint64              `json:"execution_count"`
	Stats      map[string]duration `json:"inference_stats"`
	Batches    []batchStats        `json:"batch_stats"`
}

type batchStats struct {
	Size   uint64   `json:"batch_size"`
	Input  duration `json:"compute_input"`
	Infer  duration `json:"compute_infer"`
	Output duration `json:"compute_output"`
}

func (s *Server) getStats(w http.ResponseWriter, r *http.Request) {
	list, err := s.statistics(r.PathValue("model"), r.PathValue("version"))
	if err != nil {
		writeError(w, err)
		return
	}
	out := []modelStats{}
	for _, m := range list {
		i := m.InferenceStats
		st := modelStats{Name: m.Name, Version: m.Version, Last: m.LastInference, Inferences: m.InferenceCount, Executions: m.ExecutionCount,
			Stats: map[string]duration{
				"success": asDuration(i.Success), "fail": asDuration(i.Fail), "queue": asDuration(i.Queue),
				"compute_input": asDuration(i.ComputeInput), "compute_infer": asDuration(i.ComputeInfer), "compute_output": asDuration(i.ComputeOutput),
				"cache_hit": asDuration(i.CacheHit), "cache_miss": asDuration(i.CacheMiss),
			}, Batches: []batchStats{}}
		for _, b := range m.BatchStats {
			st.Batches = append(st.Batches, batchStats{b.BatchSize, asDuration(b.ComputeInput), asDuration(b.ComputeInfer), asDuration(b.ComputeOutput)})
		}
		out = append(out, st)
	}
	writeJSON(w, http.StatusOK, map[string]any{"model_stats": out})
}
