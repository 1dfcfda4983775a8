package privacy

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/acceptance"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/health"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// sent is all that a box says, that is said to it, and that pages get of it.
var sent = []any{
	wire.Hello{}, wire.Data{}, wire.Live{}, wire.Will{}, wire.Welcome{}, wire.Ack{}, wire.Want{}, wire.Cmd{},
	// What the payload of a block is made of, by kind.
	wire.Samples{}, []wire.Event{}, []wire.Result{}, wire.Gap{}, wire.CoarseRow{},
	// The bodies of events, and what is signed for a box.
	wire.StartedBody{}, wire.PhaseBody{}, wire.ShunnedBody{}, wire.AlarmBody{}, wire.Running{}, runnerapi.Probe{}, wire.Desired{},
	wire.Serving{}, wire.HoursBody{}, health.Finding{}, wire.ResetBody{}, wire.FanBody{}, wire.AcceptBody{}, wire.Care{},
	// What the runner hands to the agent, and what a box tells of its own test.
	acceptance.Report{},
	runnerapi.Results{}, runnerapi.Status{},
	fleetapi.Box{}, fleetapi.LiveSample{}, fleetapi.Event{}, fleetapi.Result{}, fleetapi.BoxFault{},
}

// raw lists the fields in which a frame would fit, with the reason why none is
// there. over must be refused: it is more than the bound.
var raw = map[string]struct {
	why  string
	over func() error
}{
	"wire.Block.Payload": {"records of the four kinds, whose types are walked here", func() error {
		_, err := wire.Encode(wire.Data{Blocks: []wire.Block{{Key: wire.Key{Seq: 1}, Kind: wire.KindResults, Count: 1, Payload: make([]byte, 80<<10+1)}}})
		return err
	}},
	"wire.Pack.Payload":   {"columns of samples; it is opened and compared with its keys", tooLongPack},
	"wire.CoarseRow.N":    {"numbers of samples, inside of a pack", tooLongPack},
	"wire.CoarseRow.Min":  {"values of sensors, inside of a pack", tooLongPack},
	"wire.CoarseRow.Mean": {"values of sensors, inside of a pack", tooLongPack},
	"wire.CoarseRow.Max":  {"values of sensors, inside of a pack", tooLongPack},
	"wire.Hello.Runs":     {"names of databases", func() error { return tooLong(wire.Hello{V: 1, Runs: make([]wire.RunID, 1025)}) }},
	"wire.Welcome.Schemas": {"goes down to the box only", func() error {
		return tooLong(wire.Welcome{V: 1, Schemas: make([]wire.SchemaID, 513)})
	}},
	"wire.Event.Body": {"JSON of the bodies that are walked here", func() error {
		_, err := wire.EncodeEvents([]wire.Event{{Body: make([]byte, 16<<10+1)}})
		return err
	}},
	"wire.Samples.Values": {"values of sensors, one column for each metric", func() error {
		return tooMany(4096, 65)
	}},
	"wire.Samples.TimesMs": {"when the sensors were read", func() error { return tooMany(4097, 1) }},
	"wire.PhaseBody.Probe": {"JSON of runnerapi.Probe, inside of a body", tooLongBody},
	"wire.Welcome.Desired": {"goes down to the box only", func() error { return tooLong(wire.Welcome{V: 1, Desired: make([]byte, wire.MaxMessageBytes)}) }},
	"wire.Welcome.Head":    {"goes down to the box only", func() error { return tooLong(wire.Welcome{V: 1, Head: make([]byte, wire.MaxAuditHeadBytes+1)}) }},
	"wire.AuditHead.Hash":  {"a digest", func() error { return tooLong(auditHead(wire.AuditHashBytes+1, wire.AuditKeyBytes, wire.AuditSigBytes)) }},
	"wire.AuditHead.Key":   {"the id of a key", func() error { return tooLong(auditHead(wire.AuditHashBytes, wire.AuditKeyBytes+1, wire.AuditSigBytes)) }},
	"wire.AuditHead.Sig":   {"a signature", func() error { return tooLong(auditHead(wire.AuditHashBytes, wire.AuditKeyBytes, wire.AuditSigBytes+1)) }},
	"wire.DesiredSecret.Sealed": {"goes down to the box only, inside of Desired", func() error {
		return tooLong(wire.Want{Desired: make([]byte, wire.MaxMessageBytes)})
	}},
	"wire.DesiredConfig.Content": {"goes down to the box only, inside of Desired", func() error {
		return tooLong(wire.Want{Desired: make([]byte, wire.MaxMessageBytes)})
	}},
	"acceptance.Report.CurveSeconds": {"times of the temperatures; the report is opened and signed", func() error {
		_, err := acceptance.Open(make([]byte, acceptance.MaxBytes+1))
		return err
	}},
	"wire.Care.Prior":   {"goes down to the box only", func() error { return tooLong(wire.Care{V: 1, Prior: make([]byte, wire.MaxPriorBytes+1)}) }},
	"wire.Want.Desired": {"goes down to the box only", func() error { return tooLong(wire.Want{Desired: make([]byte, wire.MaxMessageBytes)}) }},
}

func auditHead(hash, key, sig int) wire.Hello {
	return wire.Hello{V: 1, Heads: []wire.AuditHead{{Seq: 1, Hash: make([]byte, hash), Key: make([]byte, key), Sig: make([]byte, sig)}}}
}

func tooLong(v any) error { _, err := wire.Encode(v); return err }

func tooLongPack() error {
	return tooLong(wire.Data{Packs: []wire.Pack{{Members: wire.Members{{Seq: 1, Count: 1}}, Payload: make([]byte, 80<<10+1)}}})
}

func tooLongBody() error {
	body, err := json.Marshal(wire.PhaseBody{Probe: []byte(`"` + strings.Repeat("x", 16<<10) + `"`)})
	if err != nil {
		return err
	}
	_, err = wire.EncodeEvents([]wire.Event{{Body: body}})
	return err
}

func tooMany(rows, metrics int) error {
	s := wire.Samples{TimesMs: make([]int64, rows)}
	for range metrics {
		s.Schema.Metrics = append(s.Schema.Metrics, wire.Metric{Name: "m"})
		s.Values = append(s.Values, make([]float64, rows))
	}
	_, err := wire.EncodeSamples(s)
	return err
}

// walk calls found for every field in which many raw bytes would fit.
func walk(t reflect.Type, seen map[reflect.Type]bool, at string, found func(field string)) {
	switch t.Kind() {
	case reflect.Pointer:
		walk(t.Elem(), seen, at, found)
	case reflect.Interface:
		found(at)
	case reflect.Map:
		walk(t.Key(), seen, at, found)
		walk(t.Elem(), seen, at, found)
	case reflect.Slice, reflect.Array:
		elem := t.Elem()
		for elem.Kind() == reflect.Slice || elem.Kind() == reflect.Array {
			elem = elem.Elem()
		}
		switch elem.Kind() {
		case reflect.Struct, reflect.String, reflect.Pointer, reflect.Map, reflect.Interface:
			walk(elem, seen, at, found)
			return
		}
		if t.Kind() == reflect.Slice || t.Size() > 32 { // the longest digest
			found(at)
		}
	case reflect.Struct:
		if seen[t] || t.PkgPath() == "time" {
			return
		}
		seen[t] = true
		for f := range t.Fields() {
			if f.PkgPath == "" || f.Anonymous {
				walk(f.Type, seen, t.String()+"."+f.Name, found)
			}
		}
	}
}

// TestT43NoFrameLeavesTheSiteSchema: of all types that travel, no field can
// carry an image but those that are listed, and those are bounded.
func TestT43NoFrameLeavesTheSiteSchema(t *testing.T) {
	seen, used := map[reflect.Type]bool{}, map[string]bool{}
	for _, v := range sent {
		typ := reflect.TypeOf(v)
		walk(typ, seen, typ.String(), func(field string) {
			if used[field] = true; raw[field].why == "" {
				t.Errorf("%s can carry raw bytes: bound it, say in this list why no frame is there", field)
			}
		})
	}
	for field, entry := range raw {
		if !used[field] {
			t.Errorf("%s is listed and does not exist", field)
			continue
		}
		if err := entry.over(); err == nil {
			t.Errorf("%s is not bounded", field)
		}
	}
	for _, name := range structsOf(t, "../../wire") {
		known := false
		for typ := range seen {
			known = known || typ.String() == "wire."+name
		}
		if !known {
			t.Errorf("wire.%s is not walked: add it to what is sent", name)
		}
	}
}

// structsOf are the exported structs of a package.
func structsOf(t *testing.T, dir string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.TypeSpec); ok && s.Name.IsExported() {
				if _, ok := s.Type.(*ast.StructType); ok {
					names = append(names, s.Name.Name)
				}
			}
			return true
		})
	}
	if len(names) < 20 {
		t.Fatalf("only %d types in %s", len(names), dir)
	}
	return names
}

// TestT43TextsAreCut: a picture written as text does not fit either.
func TestT43TextsAreCut(t *testing.T) {
	long := strings.Repeat("x", 60<<10)
	payload, err := wire.EncodeResults([]wire.Result{{Input: long, Pipeline: long, Item: long, Text: long, Want: long, Models: []string{long}}})
	if err != nil || len(payload) > 4<<10 {
		t.Errorf("a result takes %d bytes, %v", len(payload), err)
	}
	if payload, err = wire.EncodeEvents([]wire.Event{{Type: long, Text: long}}); err != nil || len(payload) > 2<<10 {
		t.Errorf("an event takes %d bytes, %v", len(payload), err)
	}
}

// TestT43AgentsMakeNoOtherKindOfBlock than those that are walked here.
func TestT43AgentsMakeNoOtherKindOfBlock(t *testing.T) {
	kinds := map[string]bool{}
	err := filepath.WalkDir("../../../agent", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			kv, ok := n.(*ast.KeyValueExpr)
			if !ok {
				return true
			}
			if key, ok := kv.Key.(*ast.Ident); ok && key.Name == "Kind" {
				if sel, ok := kv.Value.(*ast.SelectorExpr); ok && strings.HasPrefix(sel.Sel.Name, "Kind") && sel.Sel.Name != "Kind" {
					kinds[sel.Sel.Name] = true
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, walked := range []string{"KindSamples", "KindEvents", "KindResults", "KindGap"} {
		delete(kinds, walked)
	}
	for kind := range kinds {
		t.Errorf("agents make blocks of %s", kind)
	}
}
