package serve

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

// maxDepth bounds the nesting of request JSON: data has at most 8 dimensions in
// practice, and a megabyte of brackets must not cost a megabyte of stack.
const maxDepth = 32

// scanner walks JSON (RFC 8259) once, without building a tree. Its methods read
// one construct at pos and leave pos behind it.
type scanner struct {
	buf   []byte
	pos   int
	depth int
}

func (s *scanner) fault(what string) error {
	if s.pos >= len(s.buf) {
		return fmt.Errorf("JSON ends early: %s", what)
	}
	return fmt.Errorf("JSON at byte %d: %s", s.pos, what)
}

func (s *scanner) space() {
	for s.pos < len(s.buf) {
		switch s.buf[s.pos] {
		case ' ', '\n', '\r', '\t':
			s.pos++
		default:
			return
		}
	}
}

// peek returns the next byte that is not white space, 0 at the end.
func (s *scanner) peek() byte {
	s.space()
	if s.pos < len(s.buf) {
		return s.buf[s.pos]
	}
	return 0
}

// take consumes c or fails.
func (s *scanner) take(c byte) error {
	if s.peek() != c {
		return s.fault(fmt.Sprintf("want %q", c))
	}
	s.pos++
	return nil
}

// end fails unless only white space is left.
func (s *scanner) end() error {
	if s.space(); s.pos < len(s.buf) {
		return s.fault("bytes after the end of the value")
	}
	return nil
}

func (s *scanner) enter(open byte) error {
	if err := s.take(open); err != nil {
		return err
	}
	if s.depth++; s.depth > maxDepth {
		return s.fault(fmt.Sprintf("nested deeper than %d", maxDepth))
	}
	return nil
}

// more is called in front of each element and reports whether there is one;
// first tells the first call of an array or object.
func (s *scanner) more(first bool, closing byte) (bool, error) {
	c := s.peek()
	if c == closing {
		s.pos++
		s.depth--
		return false, nil
	}
	if first {
		return true, nil
	}
	return true, s.take(',')
}

// object calls each with every key, which may alias buf; each must consume the value.
func (s *scanner) object(each func(key []byte) error) error {
	if err := s.enter('{'); err != nil {
		return err
	}
	for first := true; ; first = false {
		more, err := s.more(first, '}')
		if err != nil || !more {
			return err
		}
		key, err := s.text()
		if err != nil {
			return err
		}
		if err := s.take(':'); err != nil {
			return err
		}
		if err := each(key); err != nil {
			return err
		}
	}
}

// array calls each in front of every element; each must consume it.
func (s *scanner) array(each func() error) error {
	if err := s.enter('['); err != nil {
		return err
	}
	for first := true; ; first = false {
		more, err := s.more(first, ']')
		if err != nil || !more {
			return err
		}
		if err := each(); err != nil {
			return err
		}
	}
}

// text reads a string and returns its unescaped bytes, valid UTF-8. They alias
// buf when nothing was escaped.
func (s *scanner) text() ([]byte, error) {
	if err := s.take('"'); err != nil {
		return nil, err
	}
	start, escaped := s.pos, false
	for ; s.pos < len(s.buf); s.pos++ {
		switch c := s.buf[s.pos]; {
		case c == '"':
			raw := s.buf[start:s.pos]
			s.pos++
			if !utf8.Valid(raw) {
				return nil, s.fault("string is not UTF-8; send such bytes as binary data")
			}
			if !escaped {
				return raw, nil
			}
			var out string
			if err := json.Unmarshal(s.buf[start-1:s.pos], &out); err != nil {
				return nil, s.fault("bad escape in string")
			}
			return []byte(out), nil
		case c == '\\':
			escaped = true
			s.pos++
		case c < ' ':
			return nil, s.fault("control character in string")
		}
	}
	s.pos = len(s.buf)
	return nil, s.fault("string has no end")
}

// number reads a number and its text.
func (s *scanner) number() (decimal, []byte, error) {
	s.space()
	d, end := scanNumber(s.buf, s.pos)
	if end == s.pos {
		return d, nil, s.fault("want a number")
	}
	text := s.buf[s.pos:end]
	s.pos = end
	return d, text, nil
}

// boolean reads true or false.
func (s *scanner) boolean() (bool, error) {
	s.space()
	switch rest := s.buf[s.pos:]; {
	case bytes.HasPrefix(rest, []byte("true")):
		s.pos += 4
		return true, nil
	case bytes.HasPrefix(rest, []byte("false")):
		s.pos += 5
		return false, nil
	}
	return false, s.fault("want true or false")
}

// value reads the value of a parameter.
func (s *scanner) value() (value, error) {
	switch s.peek() {
	case 't', 'f':
		flag, err := s.boolean()
		return value{kind: isBool, flag: flag}, err
	case '"':
		text, err := s.text()
		return value{kind: isText, text: string(text)}, err
	case '{', '[', 'n':
		return value{}, s.skip()
	}
	n, text, err := s.number()
	if err != nil {
		return value{}, err
	}
	f, ok := n.float64(text)
	if !ok {
		return value{}, s.fault("number is beyond FP64")
	}
	return value{kind: isNumber, number: f}, nil
}

// skip consumes any value.
func (s *scanner) skip() error {
	switch s.peek() {
	case '{':
		return s.object(func([]byte) error { return s.skip() })
	case '[':
		return s.array(s.skip)
	case '"':
		_, err := s.text()
		return err
	case 't', 'f':
		_, err := s.boolean()
		return err
	case 'n':
		if bytes.HasPrefix(s.buf[s.pos:], []byte("null")) {
			s.pos += 4
			return nil
		}
		return s.fault("want a value")
	default:
		_, _, err := s.number()
		return err
	}
}
