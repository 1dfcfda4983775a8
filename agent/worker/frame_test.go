package worker

import (
	"bufio"
	"bytes"
	"errors"
	"reflect"
	"testing"
)

func sampleRequest() request {
	return request{id: 7, base: 4096, in: []span{
		{port: 1, offset: 64, length: 12, shape: []int64{3, 1}},
		{port: 0, offset: 128, length: 0, shape: []int64{0}},
		{port: 2, offset: 128, length: 4, shape: []int64{}},
	}, outs: []int{1, 0}}
}

// TestFramesComeBackAsSent also decodes into slices that were used before.
func TestFramesComeBackAsSent(t *testing.T) {
	want := sampleRequest()
	got := request{in: make([]span, 5), outs: []int{9, 9, 9}}
	body, err := readFrame(bufio.NewReader(bytes.NewReader(appendRequest(nil, &want))), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := decodeRequest(body, &got); err != nil {
		t.Fatal(err)
	}
	for i := range got.in {
		if len(got.in[i].shape) == 0 {
			got.in[i].shape = []int64{}
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, a := range []answer{
		{id: 7, run: 5, cpu: 4, outs: []span{{offset: 64, length: 8, shape: []int64{2}}}},
		{id: 8, code: codeBadInput, outs: []span{}, text: "why"},
	} {
		got := answer{outs: []span{}}
		if err := decodeAnswer(appendAnswer(nil, &a)[4:], len(a.outs), &got); err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("got %+v, %v, want %+v", got, err, a)
		}
	}
}

// TestFrameLengthIsBounded keeps a broken peer from making us allocate.
func TestFrameLengthIsBounded(t *testing.T) {
	_, err := readFrame(bufio.NewReader(bytes.NewReader([]byte{0, 0, 0, 0xff, 1})), nil)
	if !errors.Is(err, errFrame) {
		t.Errorf("got %v, want errFrame", err)
	}
}

// FuzzFrames: what decodes encodes to the same bytes.
func FuzzFrames(f *testing.F) {
	r := sampleRequest()
	f.Add(appendRequest(nil, &r)[4:], 2)
	f.Add(appendAnswer(nil, &answer{id: 1, outs: []span{{offset: 64, length: 8, shape: []int64{2}}}})[4:], 1)
	f.Add(appendAnswer(nil, &answer{id: 1, code: codeFailed, text: "why"})[4:], 1)
	f.Fuzz(func(t *testing.T, b []byte, wanted int) {
		var r request
		if decodeRequest(b, &r) == nil && !bytes.Equal(appendRequest(nil, &r)[4:], b) {
			t.Errorf("request %x decodes to %+v, which encodes otherwise", b, r)
		}
		var a answer
		if wanted < 0 || wanted > 64 || decodeAnswer(b, wanted, &a) != nil || len(a.text) > 4096 {
			return
		}
		if !bytes.Equal(appendAnswer(nil, &a)[4:], b) {
			t.Errorf("answer %x decodes to %+v, which encodes otherwise", b, a)
		}
	})
}

// FuzzCheckText: elements that pass the check cover the data exactly.
func FuzzCheckText(f *testing.F) {
	f.Add(texts("", "a"), int64(2))
	f.Add([]byte{255, 255, 255, 255}, int64(1))
	f.Fuzz(func(t *testing.T, b []byte, count int64) {
		if checkText(b, count) == nil && (count < 0 || count*4 > int64(len(b))) {
			t.Errorf("%d elements in %d bytes", count, len(b))
		}
	})
}
