// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// spdxCreated is no clock: the document is about bytes, which have none.
const spdxCreated = "1970-01-01T00:00:00Z"

type spdxChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type spdxPackage struct {
	ID          string         `json:"SPDXID"`
	Name        string         `json:"name"`
	Version     string         `json:"versionInfo"`
	Download    string         `json:"downloadLocation"`
	Analyzed    bool           `json:"filesAnalyzed"`
	Checksums   []spdxChecksum `json:"checksums,omitempty"`
	Licence     string         `json:"licenseConcluded"`
	Declared    string         `json:"licenseDeclared"`
	Copyright   string         `json:"copyrightText"`
	Purpose     string         `json:"primaryPackagePurpose,omitempty"`
	Description string         `json:"comment,omitempty"`
}

type spdxRelation struct {
	From string `json:"spdxElementId"`
	Kind string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

// SPDX is the report as an SPDX 2.3 document in JSON. Files stand as packages
// of purpose FILE: SPDX's own file entries need SHA-1, which proves nothing
// any more.
func (r *Report) SPDX() ([]byte, error) {
	const none = "NOASSERTION"
	doc := struct {
		Version   string         `json:"spdxVersion"`
		Data      string         `json:"dataLicense"`
		ID        string         `json:"SPDXID"`
		Name      string         `json:"name"`
		Namespace string         `json:"documentNamespace"`
		Info      map[string]any `json:"creationInfo"`
		Packages  []spdxPackage  `json:"packages"`
		Relations []spdxRelation `json:"relationships"`
	}{
		Version: "SPDX-2.3", Data: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: "zos node image",
		Namespace: "https://zos.example/spdx/" + strings.TrimPrefix(r.UKI.Digest, "sha256:"),
		Info:      map[string]any{"created": spdxCreated, "creators": []string{"Tool: zos node inspect"}},
	}
	image := spdxPackage{
		ID: "SPDXRef-image", Name: "zos-node-image", Version: "sha256-" + strings.TrimPrefix(r.UKI.Digest, "sha256:")[:16], Download: none,
		Checksums: []spdxChecksum{{"SHA256", strings.TrimPrefix(r.UKI.Digest, "sha256:")}}, Licence: none, Declared: none, Copyright: none,
		Purpose: "OPERATING-SYSTEM", Description: "PCR 11 (SHA-256) after boot: " + r.PCR11,
	}
	doc.Packages = append(doc.Packages, image)
	doc.Relations = append(doc.Relations, spdxRelation{doc.ID, "DESCRIBES", image.ID})
	var origins []Origin
	for _, p := range r.Parts {
		if p.Origin.Name != "" && !slices.Contains(origins, p.Origin) {
			origins = append(origins, p.Origin)
		}
	}
	slices.SortFunc(origins, func(a, b Origin) int { return strings.Compare(a.Name+a.Version, b.Name+b.Version) })
	for i, o := range origins {
		p := spdxPackage{ID: fmt.Sprintf("SPDXRef-package-%d", i), Name: o.Name, Version: o.Version, Download: none, Licence: none, Declared: none, Copyright: none}
		if o.SHA256 != "" {
			p.Checksums = []spdxChecksum{{"SHA256", o.SHA256}}
		}
		doc.Packages = append(doc.Packages, p)
	}
	for i, f := range r.Parts {
		p := spdxPackage{
			ID: fmt.Sprintf("SPDXRef-file-%d", i), Name: f.Path, Version: none, Download: none, Licence: none, Declared: none, Copyright: none,
			Purpose: "FILE", Checksums: []spdxChecksum{{"SHA256", f.SHA256}},
		}
		doc.Packages = append(doc.Packages, p)
		doc.Relations = append(doc.Relations, spdxRelation{image.ID, "CONTAINS", p.ID})
		if at := slices.Index(origins, f.Origin); at >= 0 {
			doc.Relations = append(doc.Relations, spdxRelation{p.ID, "GENERATED_FROM", fmt.Sprintf("SPDXRef-package-%d", at)})
		}
	}
	b, err := json.MarshalIndent(doc, "", " ")
	if err != nil {
		return nil, fmt.Errorf("SPDX: %w", err)
	}
	return append(b, '\n'), nil
}
