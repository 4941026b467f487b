// SPDX-License-Identifier: Apache-2.0

package sbom

import (
	"bytes"
	"encoding/json"
	"fmt"
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
type document struct {
	Version       string         `json:"spdxVersion"`
	License       string         `json:"dataLicense"`
	ID            string         `json:"SPDXID"`
	Name          string         `json:"name"`
	Namespace     string         `json:"documentNamespace"`
	Creation      creation       `json:"creationInfo"`
	Comment       string         `json:"comment,omitempty"`
	Packages      []packageInfo  `json:"packages"`
	Relationships []relationship `json:"relationships"`
	Annotations   []annotation   `json:"annotations,omitempty"`
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

// Document writes the SPDX document of a catalog: the same bytes for the same
// image.
//
// Linked files are packages of the purpose FILE: SPDX 2.3 asks for a SHA-1 of
// what it calls a file, and the verity root says more than that.
func Document(about About, c Catalog) ([]byte, error) {
	created := "1970-01-01T00:00:00Z"
	if t, err := time.Parse(time.RFC3339, about.Created); err == nil && t.Year() >= 1970 && t.Year() < 10000 {
		created = t.UTC().Format("2006-01-02T15:04:05Z")
	}
	d := document{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: about.Manifest + " " + about.Platform,
		Namespace: "urn:zos:spdx:" + about.Manifest + ":" + about.Platform,
		Creation:  creation{created, []string{creator}},
		Packages: []packageInfo{{
			ID: "SPDXRef-Image", Name: about.Manifest, Version: about.Platform, Location: noAssertion,
			LicenseConcluded: noAssertion, LicenseDeclared: noAssertion, Copyright: noAssertion, Purpose: "CONTAINER",
			Checksums: []checksum{{"SHA256", about.Manifest[len("sha256:"):]}},
		}},
		Relationships: []relationship{{"SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image"}},
	}
	add := func(id string, p packageInfo) {
		p.ID, p.Location = id, noAssertion
		p.LicenseConcluded, p.LicenseDeclared, p.Copyright = noAssertion, noAssertion, noAssertion
		d.Packages = append(d.Packages, p)
		d.Relationships = append(d.Relationships, relationship{"SPDXRef-Image", "CONTAINS", id})
	}
	for i, p := range c.Packages {
		add("SPDXRef-Package-"+strconv.Itoa(i+1), packageInfo{
			Name: text(p.Name), Version: text(p.version()), SourceInfo: "stands in " + text(p.Source),
			Refs: []externalRef{{"PACKAGE-MANAGER", "purl", p.purl()}},
		})
	}
	linked := map[string]string{}
	for from, to := range c.Links {
		linked[from] = ""
		for _, name := range to {
			linked[name] = ""
		}
	}
	for i, name := range slices.Sorted(maps.Keys(linked)) {
		linked[name] = "SPDXRef-File-" + strconv.Itoa(i+1)
		add(linked[name], packageInfo{Name: text(name), Purpose: "FILE", FileName: text(name)})
	}
	for _, from := range slices.Sorted(maps.Keys(c.Links)) {
		for _, to := range c.Links[from] {
			d.Relationships = append(d.Relationships, relationship{linked[from], "DYNAMIC_LINK", linked[to]})
		}
	}
	note := func(format string, args ...any) {
		d.Annotations = append(d.Annotations, annotation{created, "REVIEW", creator, fmt.Sprintf(format, args...)})
	}
	for _, m := range c.Missing {
		note("missing: %s, which %s needs, for %s", text(m.Needs), text(m.By), text(m.Executable))
	}
	for _, name := range c.Unread {
		note("not read: %s; what it lists is not in this document", text(name))
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(d); err != nil {
		return nil, fmt.Errorf("encode SPDX document: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// text makes what a file says of itself UTF-8: JSON has no other.
func text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strconv.QuoteToASCII(s)
}
