// SPDX-License-Identifier: Apache-2.0

package strict

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

type inner struct {
	Port int64  `json:"port"`
	Name string `json:"name"`
}

// Inner is exported for a struct that embeds it.
type Inner struct {
	A string `json:"a"`
}

type outer struct {
	Text  string            `json:"text"`
	On    bool              `json:"on"`
	Raw   []byte            `json:"raw"`
	Words []string          `json:"words"`
	Map   map[string]string `json:"map"`
	List  []inner           `json:"list"`
	One   inner             `json:"one"`
}

const good = `{"text":"a","on":true,"raw":"AAE=","words":["x"],"map":{"k":"v"},"list":[{"port":1,"name":"n"}],"one":{"port":-2,"name":""}}`

func TestDecode(t *testing.T) {
	var got outer
	got.Words = []string{"left over from before"}
	if err := Decode([]byte(" \r\n\t"+good+"\n"), &got, 4096); err != nil {
		t.Fatal(err)
	}
	want := outer{"a", true, []byte{0, 1}, []string{"x"}, map[string]string{"k": "v"}, []inner{{1, "n"}}, inner{-2, ""}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestEmptyIsNotNil(t *testing.T) {
	var got outer
	in := `{"text":"","on":false,"raw":"","words":[],"map":{},"list":[],"one":{"port":0,"name":""}}`
	if err := Decode([]byte(in), &got, 4096); err != nil {
		t.Fatal(err)
	}
	if got.Words == nil || got.Map == nil || got.List == nil {
		t.Errorf("nil after decoding: %+v", got)
	}
	for name, v := range map[string]outer{"decoded": got, "zero": {}} {
		if out, err := Encode(&v); err != nil || string(out) != in {
			t.Errorf("%s: encoded to %s (%v), want %s", name, out, err, in)
		}
	}
}

// TestRefused changes the good document in one place.
func TestRefused(t *testing.T) {
	replace := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for name, c := range map[string]struct{ in, field, reason string }{
		"absent field":          {replace(`"on":true,`, ""), "on", "is absent"},
		"absent in list":        {replace(`"port":1,`, ""), "list[0].port", "is absent"},
		"absent last":           {replace(`,"one":{"port":-2,"name":""}`, ""), "one", "is absent"},
		"unknown field":         {replace(`"on":true`, `"on":true,"off":1`), "off", "unknown"},
		"unknown nested":        {replace(`"port":-2`, `"port":-2,"a b":1`), `one["a b"]`, "unknown"},
		"duplicate key":         {replace(`"on":true`, `"on":true,"on":true`), "on", "twice"},
		"duplicate, escaped":    {replace(`"on":true`, `"on":true,"o\u006e":true`), "on", "twice"},
		"duplicate map key":     {replace(`"k":"v"`, `"k":"v","k":"v"`), "map.k", "twice"},
		"wrong case":            {replace(`"port":1`, `"Port":1`), "list[0].Port", `want "port"`},
		"trailing data":         {good + "{}", "", "trailing data at line 1"},
		"trailing letter":       {good + "\nx", "", "trailing data at line 2, column 1"},
		"float":                 {replace(`"port":1`, `"port":1.5`), "list[0].port", "float"},
		"whole float":           {replace(`"port":1`, `"port":1.0`), "list[0].port", "float"},
		"exponent":              {replace(`"port":1`, `"port":1e0`), "list[0].port", "float"},
		"leading zero":          {replace(`"port":1`, `"port":01`), "list[0].port", "leading zero"},
		"negative zero":         {replace(`"port":1`, `"port":-0`), "list[0].port", "negative zero"},
		"plus":                  {replace(`"port":1`, `"port":+1`), "list[0].port", "not valid JSON"},
		"too large":             {replace(`"port":1`, `"port":9223372036854775808`), "list[0].port", "64 bits"},
		"number as string":      {replace(`"port":1`, `"port":"1"`), "list[0].port", "is a string, want a number"},
		"null":                  {replace(`"text":"a"`, `"text":null`), "text", "is null"},
		"null list":             {replace(`["x"]`, `null`), "words", "is null"},
		"list for object":       {replace(`{"k":"v"}`, `[]`), "map", "is a list, want an object"},
		"number as boolean":     {replace(`true`, `1`), "on", "is a number, want a boolean"},
		"half a word":           {replace(`true`, `tru`), "on", "true or false"},
		"raw invalid UTF-8":     {replace(`"a"`, "\"\xff\""), "text", "UTF-8"},
		"overlong UTF-8":        {replace(`"a"`, "\"\xc0\x80\""), "text", "UTF-8"},
		"surrogate in UTF-8":    {replace(`"a"`, "\"\xed\xa0\x80\""), "text", "UTF-8"},
		"lone high surrogate":   {replace(`"a"`, `"\ud83d"`), "text", "lone surrogate"},
		"lone low surrogate":    {replace(`"a"`, `"\ude00"`), "text", "lone surrogate"},
		"high, then letter":     {replace(`"a"`, `"\ud83d\u0041"`), "text", "lone surrogate"},
		"high, then others":     {replace(`"a"`, `"\ud83dxude00"`), "text", "lone surrogate"},
		"high, other escape":    {replace(`"a"`, `"\ud83d\nde00"`), "text", "lone surrogate"},
		"high, no digits":       {replace(`"a"`, `"\ud83d\uzz00"`), "text", "hex digits"},
		"high, cut off":         {`{"text":"\ud83d`, "text", "lone surrogate"},
		"high, cut in escape":   {`{"text":"\ud83d\`, "text", "lone surrogate"},
		"map value":             {replace(`"k":"v"`, `"k":1`), "map.k", "is a number"},
		"key not UTF-8":         {replace(`"k":"v"`, "\"\xff\":\"v\""), "map", "UTF-8"},
		"base64 not UTF-8":      {replace("AAE=", "AA\xff="), "raw", "UTF-8"},
		"NUL":                   {replace(`"a"`, `"\u0000"`), "text", "NUL"},
		"raw control":           {replace(`"a"`, "\"\n\""), "text", "control"},
		"unknown escape":        {replace(`"a"`, `"\x41"`), "text", "an escape"},
		"half an escape":        {replace(`"a"`, `"\u00`), "text", "hex digits"},
		"signed escape":         {replace(`"a"`, `"\u+041"`), "text", "hex digits"},
		"byte order mark":       {"\xef\xbb\xbf" + good, "", "byte order mark"},
		"base64 unpadded":       {replace("AAE=", "AAE"), "raw", "canonical base64"},
		"base64 with rest bits": {replace("AAE=", "AAF="), "raw", "canonical base64"},
		"base64 with line end":  {replace("AAE=", `AA\nE=`), "raw", "canonical base64"},
		"base64url":             {replace("AAE=", "__8="), "raw", "canonical base64"},
		"cut off":               {good[:len(good)-1], "", "cut off"},
		"cut off in string":     {`{"text":"a`, "text", "cut off"},
		"empty":                 {"", "", "cut off"},
		"comma at the end":      {replace(`"x"]`, `"x",]`), "words[1]", "not valid JSON"},
		"comma before brace":    {replace(`"name":""}}`, `"name":"",}}`), "one", "member name"},
		"comment":               {replace(`"on"`, `/**/"on"`), "", "not valid JSON"},
		"single quotes":         {replace(`"a"`, `'a'`), "text", "not valid JSON"},
		"form feed as space":    {"\f" + good, "", "not valid JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			before := outer{Text: "untouched"}
			got := before
			err := Decode([]byte(c.in), &got, 4096)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want a refusal", err)
			}
			if e.Field != c.field || !strings.Contains(e.Reason, c.reason) {
				t.Errorf("refused %q because it %q, want field %q, reason with %q", e.Field, e.Reason, c.field, c.reason)
			}
			if !reflect.DeepEqual(got, before) {
				t.Errorf("the target was changed: %+v", got)
			}
		})
	}
}

func TestPaths(t *testing.T) {
	long := strings.Repeat("a", 65)
	for want, got := range map[string]string{
		"a": Join("", "a"), "a.b-C_1": Join("a", "b-C_1"), `a["b c"]`: Join("a", "b c"), `a[""]`: Join("a", ""),
		`["` + long + `"]`: Join("", long), "x." + long[:64]: Join("x", long[:64]), "a[3]": Index("a", 3),
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestLimit(t *testing.T) {
	var v outer
	if err := Decode([]byte(good), &v, len(good)); err != nil {
		t.Error(err)
	}
	if err := Decode([]byte(good), &v, len(good)-1); err == nil {
		t.Error("a document above the limit was taken")
	}
}

// TestGoTypes holds that a Go type without a JSON form is an error of the
// program, never a guess.
func TestGoTypes(t *testing.T) {
	for name, v := range map[string]any{
		"float": &struct {
			A float64 `json:"a"`
		}{},
		"pointer": &struct {
			A *string `json:"a"`
		}{},
		"int": &struct {
			A int `json:"a"`
		}{},
		"any": &struct {
			A any `json:"a"`
		}{},
		"omitempty": &struct {
			A string `json:"a,omitempty"`
		}{},
		"no tag": &struct{ A string }{},
		"dash": &struct {
			A string `json:"-"`
		}{},
		"not exported": reflect.New(reflect.StructOf([]reflect.StructField{
			{Name: "a", PkgPath: "strict", Type: reflect.TypeFor[string](), Tag: `json:"a"`},
		})).Interface(),
		"embedded": &struct {
			inner `json:"a"`
		}{},
		"Embedded": &struct {
			Inner `json:"a"`
		}{},
		"value": inner{},
		"nil":   (*inner)(nil),
	} {
		var e *Error
		if err := Decode([]byte(`{"a":1}`), v, 100); err == nil || errors.As(err, &e) {
			t.Errorf("%s: got %v, want an error that blames the type", name, err)
		}
		if b, err := Encode(v); name != "value" && err == nil {
			t.Errorf("%s: encoded to %s", name, b)
		}
	}
	if _, err := Encode(map[string]float64{"a": 1}); err == nil {
		t.Error("a float was encoded")
	}
	if _, err := Encode(nil); err == nil {
		t.Error("nil was encoded")
	}
}

func TestEncode(t *testing.T) {
	v := outer{Text: "<&>\u2028é😀\"", Map: map[string]string{"b": "", "a": ""}}
	b, err := Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(b, []byte(`{"text":"<&>`)) || !bytes.Contains(b, []byte(`{"a":"","b":""}`)) {
		t.Errorf("encoded to %s", b)
	}
	var back outer
	if err := Decode(b, &back, 4096); err != nil || back.Text != v.Text {
		t.Errorf("came back as %q, %v", back.Text, err)
	}
	for name, bad := range map[string]outer{
		"UTF-8":   {Words: []string{"\xff"}},
		"NUL":     {Text: "a\x00"},
		"map key": {Map: map[string]string{"\x00": ""}},
	} {
		if out, err := Encode(bad); err == nil {
			t.Errorf("%s: encoded to %q", name, out)
		}
	}
}

func TestTree(t *testing.T) {
	got, err := Tree([]byte(`{"a":[1,"x\ud83d\ude00",true,{}]}`), 100)
	want := map[string]any{"a": []any{int64(1), "x😀", true, map[string]any{}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %#v, %v", got, err)
	}
	for in, field := range map[string]string{`{"a":{"b":null}}`: "a.b", `{"a":1,"a":2}`: "a", `[1.5]`: "[0]", `[`: "[0]", strings.Repeat("[", 100): strings.Repeat("[0]", 33)} {
		_, err := Tree([]byte(in), 100)
		var e *Error
		if !errors.As(err, &e) || e.Field != field {
			t.Errorf("%s: got %v, want a refusal of %q", in, err, field)
		}
	}
}

// FuzzDecode: what we take, the standard library takes and reads alike, and
// it survives a round trip.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(`{"text":"\ud83d\ude00\/","on":false,"raw":"","words":[],"map":{"":""},"list":[],"one":{"port":0,"name":"é"}}`))
	f.Add([]byte(`{"text":"\`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Tree(b, 1<<16); err == nil && !json.Valid(b) {
			t.Errorf("Tree took %q, which is not JSON", b)
		}
		var ours, std, back outer
		if Decode(b, &ours, 1<<16) != nil {
			return
		}
		if err := json.Unmarshal(b, &std); err != nil || !reflect.DeepEqual(ours, std) {
			t.Fatalf("we read %q as %+v, encoding/json as %+v (%v)", b, ours, std, err)
		}
		out, err := Encode(ours)
		if err != nil {
			t.Fatal(err)
		}
		if err := Decode(out, &back, 1<<20); err != nil || !reflect.DeepEqual(ours, back) {
			t.Fatalf("%+v came back as %+v (%v)", ours, back, err)
		}
	})
}
