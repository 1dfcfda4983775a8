package models

import (
	"strings"
	"testing"
)

const variantYAML = smallYAML + "variants:\n  - {name: fp32, file: model.onnx}\n  - {name: int8, file: small.onnx, golden: small.json}\n"

// narrow is smallModel with a fixed batch.
func narrow() []byte {
	return model(value(11, "x", 1, 1, 3), value(11, "sr", 7), value(12, "y", 10, 0))
}

func TestVariantsArePackedFromTheBestToTheCheapest(t *testing.T) {
	dir := modelDir(t, map[string]string{DescriptionFile: variantYAML, GoldenFile: smallGolden(t),
		"small.onnx": string(smallModel()) + "\x1a\x01!", "small.json": smallGolden(t) + "\n"}) // of a newer maker
	m, paths, err := Pack(dir)
	if err != nil {
		t.Fatal(err)
	}
	ladder := m.Ladder()
	if len(ladder) != 2 || ladder[0].Name != "fp32" || ladder[0].GoldenPath() != GoldenFile || ladder[1].GoldenPath() != "small.json" {
		t.Errorf("ladder %+v", ladder)
	}
	for _, name := range []string{"small.onnx", "small.json"} { // though files does not list them
		if f, ok := m.File(name); !ok || paths[f.Digest] == "" {
			t.Errorf("%s is not packed", name)
		}
	}
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if back, err := DecodeManifest(data); err != nil || len(back.Variants) != 2 || back.Variants[1] != ladder[1] {
		t.Errorf("decoded %+v, %v", back.Variants, err)
	}
	if one := (Manifest{}).Ladder(); len(one) != 1 || one[0].Path != ModelFile || one[0].Name != "" {
		t.Errorf("without variants: %+v", one)
	}
}

func TestVariantsThatCouldNotReplaceEachOtherAreRefused(t *testing.T) {
	small := map[string]string{DescriptionFile: variantYAML, GoldenFile: smallGolden(t), "small.onnx": string(smallModel()) + "\x1a\x01!", "small.json": smallGolden(t)}
	yaml := func(lines string) map[string]string {
		return map[string]string{DescriptionFile: smallYAML + "variants:\n" + lines}
	}
	for _, tt := range []struct {
		name    string
		changes map[string]string
		want    string
	}{
		{"another signature", map[string]string{"small.onnx": string(narrow())}, `variant "int8": small.onnx has another signature than model.onnx: input "x": dimension 0 was free and is now fixed to 1`},
		{"takes more than the best", map[string]string{ModelFile: string(narrow())}, `variant "int8": small.onnx has another signature`},
		{"another order", map[string]string{"small.onnx": string(model(value(11, "sr", 7), value(11, "x", 1, -1, 3), value(12, "y", 10, 0)))}, `variant "int8": small.onnx lists its inputs or outputs in another order`},
		{"no model", map[string]string{"small.onnx": "noise"}, `variant "int8": small.onnx`},
		{"bad samples", map[string]string{"small.json": "{}"}, `variant "int8": small.json`},
		{"samples of another model", map[string]string{"small.json": strings.ReplaceAll(smallGolden(t), `"sr"`, `"rate"`)}, `no input "rate"`},
		{"one variant", yaml("  - {name: fp32, file: model.onnx}\n"), "1 variants, want 2 to 8 or none"},
		{"the best is another file", yaml("  - {name: int8, file: small.onnx}\n  - {name: fp32, file: model.onnx}\n"), "the first variant is \"small.onnx\""},
		{"a name twice", yaml("  - {name: a, file: model.onnx}\n  - {name: a, file: small.onnx}\n"), `variant "a": two variants`},
		{"a file twice", yaml("  - {name: a, file: model.onnx}\n  - {name: b, file: model.onnx}\n"), `variant "b": two variants`},
		{"no name", yaml("  - {name: a, file: model.onnx}\n  - {file: small.onnx}\n"), `variant 2: name ""`},
		{"an unknown key", yaml("  - {name: a, file: model.onnx, precison: int8}\n"), "precison"},
		{"no such file", yaml("  - {name: a, file: model.onnx}\n  - {name: b, file: none.onnx}\n"), "none.onnx"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			changes := map[string]string{}
			for _, from := range []map[string]string{small, tt.changes} {
				for name, content := range from {
					changes[name] = content
				}
			}
			if _, _, err := Pack(modelDir(t, changes)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	bare := map[string]string{DescriptionFile: smallYAML + "variants:\n  - {name: a, file: model.onnx}\n  - {name: b, file: small.onnx}\n", "small.onnx": small["small.onnx"]}
	if _, _, err := Pack(modelDir(t, bare)); err == nil || !strings.Contains(err.Error(), "no golden samples") {
		t.Errorf("without golden samples: %v", err)
	}
}
