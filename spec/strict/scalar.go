// SPDX-License-Identifier: Apache-2.0

package strict

import (
	"encoding/base64"
	"reflect"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// integer reads a whole number. Fractions and exponents are refused even
// where their value is whole: 1.0 and 1e0 are the same number in other bytes.
func (d *decoder) integer(path string, v reflect.Value) error {
	start := d.pos
	if d.in[d.pos] == '-' {
		d.pos++
	}
	digits := d.pos
	for d.pos < len(d.in) && d.in[d.pos] >= '0' && d.in[d.pos] <= '9' {
		d.pos++
	}
	word := string(d.in[start:d.pos])
	switch {
	case d.pos == digits:
		return d.syntax(path, "a digit")
	case d.pos < len(d.in) && (d.in[d.pos] == '.' || d.in[d.pos]|0x20 == 'e'):
		return Errorf(path, "is a float, only whole numbers are allowed")
	case d.in[digits] == '0' && (d.pos > digits+1 || digits > start):
		return Errorf(path, "is %s: no leading zero and no negative zero is allowed", short(word))
	}
	n, err := strconv.ParseInt(word, 10, 64)
	if err != nil {
		return Errorf(path, "is %s, which does not fit 64 bits", short(word))
	}
	v.SetInt(n)
	return nil
}

// short keeps a message readable whatever it quotes.
func short(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

// bytes reads base64 in its one canonical form: what encodes again to the
// same text. Go's decoder alone would pass over line breaks.
func (d *decoder) bytes(path string, v reflect.Value) error {
	s, err := d.text(path)
	if err != nil {
		return err
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || base64.StdEncoding.EncodeToString(raw) != s {
		return Errorf(path, "is not canonical base64 (standard alphabet, with padding)")
	}
	v.SetBytes(raw)
	return nil
}

// text reads a string.
func (d *decoder) text(path string) (string, error) {
	b, err := d.chars(path)
	return string(b), err
}

// chars reads a string, which may share its bytes with the document. Refused are
// broken UTF-8, control characters, NUL and lone surrogates in every spelling, as
// decoders differ in what they make of them.
func (d *decoder) chars(path string) ([]byte, error) {
	d.pos++ // the quote that the caller saw
	start := d.pos
	for d.pos < len(d.in) && d.in[d.pos] >= ' ' && d.in[d.pos] < utf8.RuneSelf && d.in[d.pos] != '\\' && d.in[d.pos] != '"' {
		d.pos++
	}
	if d.pos < len(d.in) && d.in[d.pos] == '"' { // nothing but plain characters, as nearly always
		d.pos++
		return d.in[start : d.pos-1], nil
	}
	out := append([]byte{}, d.in[start:d.pos]...)
	for d.pos < len(d.in) {
		switch c := d.in[d.pos]; {
		case c == '"':
			d.pos++
			return out, nil
		case c == '\\':
			r, err := d.escape(path)
			if err != nil {
				return nil, err
			}
			out = utf8.AppendRune(out, r)
		case c < 0x20:
			return nil, Errorf(path, "has the raw control character %q %s", c, d.where())
		default:
			r, n := utf8.DecodeRune(d.in[d.pos:])
			if r == utf8.RuneError && n <= 1 {
				return nil, Errorf(path, "is not valid UTF-8 %s", d.where())
			}
			out = append(out, d.in[d.pos:d.pos+n]...)
			d.pos += n
		}
	}
	return nil, d.syntax(path, "the end of the string")
}

// escape reads what follows a backslash.
func (d *decoder) escape(path string) (rune, error) {
	d.pos++
	if d.pos >= len(d.in) {
		return 0, d.syntax(path, "an escape")
	}
	c := d.in[d.pos]
	for i, letter := range []byte(`"\/bfnrt`) {
		if c == letter {
			d.pos++
			return rune("\"\\/\b\f\n\r\t"[i]), nil
		}
	}
	if c != 'u' {
		return 0, d.syntax(path, "an escape")
	}
	d.pos++
	r, err := d.hex(path)
	if err != nil {
		return 0, err
	}
	if utf16.IsSurrogate(r) {
		if d.pos+1 >= len(d.in) || d.in[d.pos] != '\\' || d.in[d.pos+1] != 'u' {
			return 0, Errorf(path, "has a lone surrogate %s", d.where())
		}
		d.pos += 2
		low, err := d.hex(path)
		if err != nil {
			return 0, err
		}
		if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
			return 0, Errorf(path, "has a lone surrogate %s", d.where())
		}
	}
	if r == 0 {
		return 0, Errorf(path, "has a NUL character %s", d.where())
	}
	return r, nil
}

// hex reads the four digits of a \u escape.
func (d *decoder) hex(path string) (rune, error) {
	if len(d.in)-d.pos < 4 {
		d.pos = len(d.in)
		return 0, d.syntax(path, "four hex digits")
	}
	// ParseUint alone would take a sign or an underscore as well.
	for _, c := range d.in[d.pos : d.pos+4] {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
			return 0, d.syntax(path, "four hex digits")
		}
	}
	n, err := strconv.ParseUint(string(d.in[d.pos:d.pos+4]), 16, 32)
	if err != nil {
		return 0, d.syntax(path, "four hex digits")
	}
	d.pos += 4
	return rune(n), nil
}
