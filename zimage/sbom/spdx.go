// SPDX-License-Identifier: Apache-2.0

package sbom

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// About is what a document says of the image as a whole.
type About struct {
	Manifest string // digest of the OCI manifest, "sha256:…"
	Platform string // "linux/amd64"
	Created  string // of the OCI configuration; the year 1970 where it has none
}

// The types below are the parts of SPDX 2.3 that a document has. Fields stand
// in the order in which they are written.
type head struct {
	Version   string   `json:"spdxVersion"`
	License   string   `json:"dataLicense"`
	ID        string   `json:"SPDXID"`
	Name      string   `json:"name"`
	Namespace string   `json:"documentNamespace"`
	Creation  creation `json:"creationInfo"`
}

type creation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type packageInfo struct {
	ID               string        `json:"SPDXID"`
	Name             string        `json:"name"`
	Version          string        `json:"versionInfo,omitempty"`
	Location         string        `json:"downloadLocation"`
	FilesAnalyzed    bool          `json:"filesAnalyzed"`
	LicenseConcluded string        `json:"licenseConcluded"`
	LicenseDeclared  string        `json:"licenseDeclared"`
	Copyright        string        `json:"copyrightText"`
	SourceInfo       string        `json:"sourceInfo,omitempty"`
	Purpose          string        `json:"primaryPackagePurpose,omitempty"`
	FileName         string        `json:"packageFileName,omitempty"`
	Checksums        []checksum    `json:"checksums,omitempty"`
	Refs             []externalRef `json:"externalRefs,omitempty"`
}

type checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type externalRef struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	From string `json:"spdxElementId"`
	Type string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

type annotation struct {
	Date    string `json:"annotationDate"`
	Type    string `json:"annotationType"`
	By      string `json:"annotator"`
	Comment string `json:"comment"`
}

const (
	noAssertion = "NOASSERTION"
	creator     = "Tool: zos-image-convert"
)

// Write writes the SPDX document of a catalog: the same bytes for the same
// image. It holds none of it.
//
// Linked files are packages of the purpose FILE: SPDX 2.3 asks for a SHA-1 of
// what it calls a file, and the verity root says more than that.
func Write(w io.Writer, about About, c Catalog) error {
	created := "1970-01-01T00:00:00Z"
	if t, err := time.Parse(time.RFC3339, about.Created); err == nil && t.Year() >= 1970 && t.Year() < 10000 {
		created = t.UTC().Format("2006-01-02T15:04:05Z")
	}
	linked := map[string]int{}
	for from, to := range c.Links {
		linked[from] = 0
		for _, name := range to {
			linked[name] = 0
		}
	}
	files := slices.Sorted(maps.Keys(linked))
	for i, name := range files {
		linked[name] = i + 1
	}
	packageID := func(i int) string { return "SPDXRef-Package-" + strconv.Itoa(i+1) }
	fileID := func(name string) string { return "SPDXRef-File-" + strconv.Itoa(linked[name]) }

	o := &output{w: bufio.NewWriter(w)}
	o.begin(head{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: about.Manifest + " " + about.Platform,
		Namespace: "urn:zos:spdx:" + about.Manifest + ":" + about.Platform,
		Creation:  creation{created, []string{creator}},
	})
	o.array("packages")
	o.element(packageInfo{
		ID: "SPDXRef-Image", Name: about.Manifest, Version: about.Platform, Location: noAssertion,
		LicenseConcluded: noAssertion, LicenseDeclared: noAssertion, Copyright: noAssertion, Purpose: "CONTAINER",
		Checksums: []checksum{{"SHA256", about.Manifest[len("sha256:"):]}},
	})
	add := func(p packageInfo) {
		p.Location = noAssertion
		p.LicenseConcluded, p.LicenseDeclared, p.Copyright = noAssertion, noAssertion, noAssertion
		o.element(p)
	}
	for i, p := range c.Packages {
		add(packageInfo{
			ID: packageID(i), Name: text(p.Name), Version: text(p.version()), SourceInfo: "stands in " + text(p.Source),
			Refs: []externalRef{{"PACKAGE-MANAGER", "purl", p.purl()}},
		})
	}
	for _, name := range files {
		add(packageInfo{ID: fileID(name), Name: text(name), Purpose: "FILE", FileName: text(name)})
	}
	o.end()

	o.array("relationships")
	o.element(relationship{"SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image"})
	for i := range c.Packages {
		o.element(relationship{"SPDXRef-Image", "CONTAINS", packageID(i)})
	}
	for _, name := range files {
		o.element(relationship{"SPDXRef-Image", "CONTAINS", fileID(name)})
	}
	for _, from := range slices.Sorted(maps.Keys(c.Links)) {
		for _, to := range c.Links[from] {
			o.element(relationship{fileID(from), "DYNAMIC_LINK", fileID(to)})
		}
	}
	o.end()

	if len(c.Missing)+len(c.Unread) > 0 {
		note := func(format string, args ...any) {
			o.element(annotation{created, "REVIEW", creator, fmt.Sprintf(format, args...)})
		}
		o.array("annotations")
		for _, m := range c.Missing {
			note("missing: %s, which %s needs, for %s", text(m.Needs), text(m.By), text(m.Executable))
		}
		for _, name := range c.Unread {
			note("not read: %s; what it lists is not in this document", text(name))
		}
		o.end()
	}
	return o.close()
}

// output writes an object whose last fields are arrays, element by element,
// and keeps the first error.
type output struct {
	w     *bufio.Writer
	buf   bytes.Buffer // of one element
	err   error
	later bool // the next element is not the first of its array
}

// value gives the JSON of a value, until the next one.
func (o *output) value(v any) []byte {
	o.buf.Reset()
	e := json.NewEncoder(&o.buf)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil && o.err == nil {
		o.err = err
	}
	return bytes.TrimSuffix(o.buf.Bytes(), []byte("\n"))
}

func (o *output) write(b []byte) {
	if o.err == nil {
		_, o.err = o.w.Write(b)
	}
}

// begin writes the first fields.
func (o *output) begin(v any) { o.write(bytes.TrimSuffix(o.value(v), []byte("}"))) }

func (o *output) array(name string) {
	o.write([]byte(`,"` + name + `":[`))
	o.later = false
}

func (o *output) element(v any) {
	if o.later {
		o.write([]byte(","))
	}
	o.write(o.value(v))
	o.later = true
}

func (o *output) end() { o.write([]byte("]")) }

func (o *output) close() error {
	o.write([]byte("}"))
	if o.err == nil {
		o.err = o.w.Flush()
	}
	if o.err != nil {
		return fmt.Errorf("write SPDX document: %w", o.err)
	}
	return nil
}

// text makes what a file says of itself UTF-8: JSON has no other.
func text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strconv.QuoteToASCII(s)
}
