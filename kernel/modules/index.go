// SPDX-License-Identifier: Apache-2.0

package modules

import (
	"bytes"
	"fmt"
	"sort"
	"strings"
)

// Index writes the text files of lib/modules/RELEASE for the chosen modules,
// in the formats of depmod: modules.dep, modules.alias, modules.softdep and
// modules.builtin. Ours are modules.load, what is loaded at boot, in order,
// modules.late, what is loaded while the agent starts, and modules.wait, what
// is loaded then if a device asks for it.
func Index(chosen []Module, builtin []string) map[string][]byte {
	byName := map[string]Module{}
	for _, m := range chosen {
		byName[m.Name] = m
	}
	var dep, alias, soft, load, late, wait, built bytes.Buffer
	for _, m := range chosen {
		fmt.Fprintf(&dep, "%s:", m.Path)
		for _, d := range closure(m, byName) {
			fmt.Fprintf(&dep, " %s", byName[d].Path)
		}
		dep.WriteByte('\n')
		for _, a := range m.Aliases {
			// A space would tear the line apart; no alias that matches a device has one.
			if !strings.ContainsAny(a, " \t\n") {
				fmt.Fprintf(&alias, "alias %s %s\n", a, m.Name)
			}
		}
		if len(m.SoftPre) > 0 {
			fmt.Fprintf(&soft, "softdep %s pre: %s\n", m.Name, strings.Join(m.SoftPre, " "))
		}
		if m.Load {
			fmt.Fprintln(&load, m.Name)
		}
		if m.Late {
			fmt.Fprintln(&late, m.Name)
		}
		if m.Wait {
			fmt.Fprintln(&wait, m.Name)
		}
	}
	sort.Strings(builtin)
	for _, b := range builtin {
		fmt.Fprintf(&built, "kernel/%s.ko\n", b)
	}
	return map[string][]byte{
		"modules.dep": dep.Bytes(), "modules.alias": alias.Bytes(), "modules.softdep": soft.Bytes(),
		"modules.load": load.Bytes(), "modules.late": late.Bytes(), "modules.wait": wait.Bytes(), "modules.builtin": built.Bytes(),
	}
}

// closure lists all modules that m needs, nearest first as depmod does: the
// loader goes through it from the end.
func closure(m Module, byName map[string]Module) []string {
	var out []string
	seen := map[string]bool{m.Name: true}
	var visit func(Module)
	visit = func(m Module) {
		for _, d := range m.Depends {
			n, ok := byName[d]
			if !ok || seen[d] {
				continue
			}
			seen[d] = true
			visit(n)
			out = append(out, d)
		}
	}
	visit(m)
	// visit appended each after what it needs; depmod's order is the reverse.
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out
}
