// SPDX-License-Identifier: Apache-2.0

package render

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/spec/strict"
)

// filler completes a document in place. Values of a wrong shape are left as
// they are for the strict decoder, which names them better.
type filler struct {
	top      map[string]any
	resolver Resolver
}

// fill applies the table, then what depends on more than one field. Images
// come first: the process, and through it the mounts, depend on them.
func (f *filler) fill() error {
	for _, row := range Defaults() {
		if err := row.apply(f.top); err != nil {
			return err
		}
	}
	var failed error
	inOrder(f.top["machines"], func(i int, m map[string]any) {
		if failed == nil {
			failed = f.machine(strict.Index("machines", i), m)
		}
	})
	if failed != nil {
		return failed
	}
	if err := f.subnets(); err != nil {
		return err
	}
	f.addresses()
	f.gateways()
	return nil
}

func (f *filler) machine(at string, m map[string]any) error {
	for _, name := range []string{"kernel", "initramfs"} {
		if err := f.file(strict.Join(at, name), m, name); err != nil {
			return err
		}
	}
	if err := f.image(strict.Join(at, "image"), m); err != nil {
		return err
	}
	owner(m)
	return nil
}

// objects lists the entries of a list that are objects, by index.
func objects(v any) map[int]map[string]any {
	all := map[int]map[string]any{}
	list, _ := v.([]any)
	for i, e := range list {
		if m, ok := e.(map[string]any); ok {
			all[i] = m
		}
	}
	return all
}

// inOrder calls f for the objects of a list, in the order of the list.
func inOrder(v any, f func(i int, m map[string]any)) {
	all := objects(v)
	list, _ := v.([]any)
	for i := range list {
		if m, ok := all[i]; ok {
			f(i, m)
		}
	}
}

func set(m map[string]any, name string, value any) {
	if _, given := m[name]; !given {
		m[name] = value
	}
}

// file replaces "file:PATH" by the digest of the file.
func (f *filler) file(at string, m map[string]any, name string) error {
	text, _ := m[name].(string)
	path, ok := strings.CutPrefix(text, "file:")
	if !ok {
		return nil
	}
	if f.resolver == nil {
		return strict.Errorf(at, "is %q, and files cannot be read here", text)
	}
	digest, err := f.resolver.File(path)
	if err != nil {
		return &spec.FieldError{Field: at, Reason: "is " + strconv.Quote(text) + ": " + err.Error()}
	}
	m[name] = digest
	return nil
}

// image resolves a reference and takes the process's defaults from it.
func (f *filler) image(at string, m map[string]any) error {
	var got ResolvedImage
	if _, given := m["image"]; !given {
		return strict.Errorf(at, "is absent, want a reference such as oci:DIR, or digests")
	}
	if ref, ok := m["image"].(string); ok {
		if f.resolver == nil {
			return strict.Errorf(at, "is %q, and images cannot be resolved here", ref)
		}
		arch := "amd64"
		if p, ok := f.top["placement"].(map[string]any); ok {
			arch, _ = p["arch"].(string)
		}
		var err error
		if got, err = f.resolver.Image(ref, "linux/"+arch); err != nil {
			return &spec.FieldError{Field: at, Reason: "is " + strconv.Quote(ref) + ": " + err.Error()}
		}
		i := got.Image
		m["image"] = map[string]any{"oci": i.OCI, "platform": i.Platform, "id": i.ID, "verityRoot": i.VerityRoot}
	}
	p, ok := m["process"].(map[string]any)
	if !ok {
		return nil
	}
	if len(got.Args) > 0 {
		args := []any{}
		for _, a := range got.Args {
			args = append(args, a)
		}
		set(p, "args", args)
	}
	set(p, "env", map[string]any{})
	if env, ok := p["env"].(map[string]any); ok {
		for name, value := range got.Env {
			set(env, name, value)
		}
		// A spec that gives digests is complete as it stands.
		if got.Image.OCI != "" {
			set(env, "PATH", dockerPath)
		}
	}
	set(p, "cwd", or(got.Cwd, "/"))
	set(p, "user", or(got.User, "0:0"))
	set(p, "stopSignal", signal(got.StopSignal))
	return nil
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// signal brings an image's stop signal ("QUIT", "SIGQUIT", "3") into the one
// form of a spec.
func signal(s string) string {
	numbers := map[string]string{"1": "SIGHUP", "2": "SIGINT", "3": "SIGQUIT", "6": "SIGABRT", "9": "SIGKILL", "10": "SIGUSR1",
		"12": "SIGUSR2", "14": "SIGALRM", "15": "SIGTERM", "28": "SIGWINCH", "30": "SIGPWR"}
	switch name, ok := numbers[s]; {
	case s == "":
		return "SIGTERM"
	case ok:
		return name
	case strings.HasPrefix(s, "SIG"):
		return s
	}
	return "SIG" + s
}

// owner gives mounts to the user who is to write there.
func owner(m map[string]any) {
	p, _ := m["process"].(map[string]any)
	user, _ := p["user"].(string)
	uid, gid, _ := strings.Cut(user, ":")
	for name, text := range map[string]string{"uid": uid, "gid": gid} {
		id, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			continue // the decoder refuses such a user by its own name
		}
		for _, t := range objects(m["mounts"]) {
			set(t, name, id)
		}
	}
}

// subnets needs the names: without one, an interface could not be given its
// address, and the refusal would name that instead.
func (f *filler) subnets() (err error) {
	inOrder(f.top["networks"], func(i int, n map[string]any) {
		if _, named := n["name"]; !named && err == nil {
			err = strict.Errorf(strict.Join(strict.Index("networks", i), "name"), "is absent")
		}
		set(n, "subnet", "10.42."+strconv.Itoa(i)+".0/24")
	})
	return err
}

// addresses gives each interface without an address the lowest free one.
func (f *filler) addresses() {
	taken := map[netip.Addr]bool{}
	interfaces := func(g func(m map[string]any)) {
		inOrder(f.top["machines"], func(_ int, m map[string]any) {
			inOrder(m["interfaces"], func(_ int, i map[string]any) { g(i) })
		})
	}
	interfaces(func(i map[string]any) {
		text, _ := i["address"].(string)
		if a, err := netip.ParseAddr(text); err == nil {
			taken[a] = true
		}
	})
	subnets := map[string]netip.Prefix{}
	inOrder(f.top["networks"], func(_ int, n map[string]any) {
		name, _ := n["name"].(string)
		text, _ := n["subnet"].(string)
		if p, err := netip.ParsePrefix(text); err == nil && p.Addr().Is4() {
			subnets[name] = p.Masked()
		}
	})
	interfaces(func(i map[string]any) {
		name, _ := i["network"].(string)
		p, known := subnets[name]
		if _, given := i["address"]; given || !known {
			return
		}
		// The first address is the bridge's; the last one, for which there is
		// no next inside the subnet, is the broadcast address.
		for a := p.Addr().Next().Next(); p.Contains(a.Next()); a = a.Next() {
			if !taken[a] {
				taken[a] = true
				i["address"] = a.String()
				return
			}
		}
	})
}

func (f *filler) gateways() {
	network := map[string]any{}
	inOrder(f.top["machines"], func(_ int, m map[string]any) {
		name, _ := m["name"].(string)
		if all := objects(m["interfaces"]); len(all) == 1 {
			network[name] = all[0]["network"]
		}
	})
	inOrder(f.top["gateways"], func(_ int, g map[string]any) {
		if port, ok := g["port"]; ok {
			set(g, "targetPort", port)
		}
		name, _ := g["machine"].(string)
		if n, ok := network[name].(string); ok {
			set(g, "network", n)
		}
	})
}
