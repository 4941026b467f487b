// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec"
)

// zos runs the tool in this process and wants an exit code.
func zos(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if got := run(t.Context(), args, &out, &errs); got != want {
		t.Fatalf("zos %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, want, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

func contains(t *testing.T, s string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(s, w) {
			t.Errorf("%q is not in:\n%s", w, s)
		}
	}
}

// file writes a file and returns its path.
func file(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// keyFile makes a key; beside it stands its public half.
func keyFile(t *testing.T, dir, name string) string {
	t.Helper()
	s, pem, err := sign.GenerateSigner()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	for p, b := range map[string][]byte{path: pem, path + ".pub": []byte(s.PublicKey() + " " + name + "\n")} {
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// lineWriter hands on the first line that is written.
type lineWriter struct {
	once sync.Once
	line chan string
	io.Writer
}

func (l *lineWriter) Write(b []byte) (int, error) {
	l.once.Do(func() { l.line <- string(b) })
	return len(b), nil
}

// serve runs `zos ledger serve` until the test ends.
func serve(t *testing.T, dir string) string {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	out := &lineWriter{line: make(chan string, 1)}
	code := make(chan int, 1)
	var errs bytes.Buffer
	go func() { code <- run(ctx, []string{"ledger", "serve", dir, "--listen", "127.0.0.1:0"}, out, &errs) }()
	t.Cleanup(func() {
		stop()
		if c := <-code; c != 0 {
			t.Errorf("serve ended with %d: %s", c, errs.String())
		}
	})
	select {
	case line := <-out.line:
		_, url, ok := strings.Cut(strings.TrimSpace(line), "ledger ready on ")
		if !ok {
			t.Fatalf("first line is %q", line)
		}
		return url
	case c := <-code:
		code <- c
		t.Fatalf("serve ended with %d: %s", c, errs.String())
	}
	return ""
}

// serveMirror runs `zos ledger mirror` until the test ends.
func serveMirror(t *testing.T, dir, from, root string) (url, metrics string) {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	out := &lineWriter{line: make(chan string, 1)}
	code := make(chan int, 1)
	var errs bytes.Buffer
	go func() {
		code <- run(ctx, []string{"ledger", "mirror", dir, "--ledger", from, "--root", root, "--listen", "127.0.0.1:0", "--metrics", address, "--every", "50ms"}, out, &errs)
	}()
	t.Cleanup(func() {
		stop()
		if c := <-code; c != 0 {
			t.Errorf("mirror ended with %d: %s", c, errs.String())
		}
	})
	select {
	case line := <-out.line:
		_, url, _ = strings.Cut(strings.TrimSpace(line), "mirror ready on ")
		return url, "http://" + address + "/metrics"
	case c := <-code:
		code <- c
		t.Fatalf("mirror ended with %d: %s", c, errs.String())
	}
	return "", ""
}

func fetched(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestLedgerCommands(t *testing.T) {
	t.Setenv("ZOS_LEDGER", "")
	t.Setenv("ZOS_ROOT", "")
	dir := t.TempDir()
	keys := map[string]string{}
	for _, k := range []string{"root", "author", "security1", "security2", "operator"} {
		keys[k] = keyFile(t, dir, k)
	}
	led := filepath.Join(dir, "ledger")
	initial := []string{"ledger", "init", led, "--origin", "zos.example/test",
		"--role", "author=" + keys["author"] + ".pub:1", "--role", "security=" + keys["security1"] + ".pub," + keys["security2"] + ".pub:2",
		"--role", "operator=" + keys["operator"] + ".pub:1", "--root-key", keys["root"]}
	_, e := zos(t, exitUsage, initial...)
	contains(t, e, "--require deployment=")
	_, e = zos(t, exitRefused, append(initial, "--require", "deployment=author,sekurity")...)
	contains(t, e, `"sekurity"`)
	initial = append(initial, "--require", "deployment=author,security", "--require", "stop=author")
	zos(t, exitOK, initial...)
	_, e = zos(t, exitRefused, initial...)
	contains(t, e, "is not empty")

	root := filepath.Join(led, "root.json")
	voucher := filepath.Join(dir, "voucher.json")
	_, e = zos(t, exitRefused, "ledger", "voucher", "--key", keys["author"], "--root", root, "-o", voucher)
	contains(t, e, `"operator" has 0 of 1`)
	zos(t, exitOK, "ledger", "voucher", "--key", keys["operator"], "--root", root, "--uses", "2", "--label", "site=a", "-o", voucher)

	url := serve(t, led)
	_, e = zos(t, exitFailed, "ledger", "serve", led, "--listen", "127.0.0.1:0")
	contains(t, e, "another zos ledger serve uses "+led)
	sp := file(t, "shop.json", ledgertest.New(t).Spec("shop", 1, nil))
	env := filepath.Join(dir, "shop.envelope")
	zos(t, exitOK, "sign", "--key", keys["author"], "--role", "author", "--root", root, sp, "-o", env)
	zos(t, exitOK, "sign", "--key", keys["security1"], "--role", "security", "--root", root, env, "-o", env)
	_, e = zos(t, exitRefused, "submit", env, "--ledger", url, "--root", root)
	contains(t, e, "nothing was submitted", `"security" has 1 of 2`)
	_, e = zos(t, exitRefused, "submit", env, "--ledger", url)
	contains(t, e, "the ledger refuses it", `"security" has 1 of 2`)
	zos(t, exitOK, "sign", "--key", keys["security2"], "--role", "security", "--root", root, env, "-o", env)
	var first, again struct {
		Index    int64
		Verified bool
	}
	o, _ := zos(t, exitOK, "submit", env, "--ledger", url, "--root", root, "--json")
	if err := json.Unmarshal([]byte(o), &first); err != nil || !first.Verified || first.Index != 2 {
		t.Fatalf("receipt %s, %v", o, err)
	}
	o, _ = zos(t, exitOK, "submit", env, "--ledger", url, "--json")
	if err := json.Unmarshal([]byte(o), &again); err != nil || again.Index != first.Index {
		t.Errorf("again: %s, %v", o, err)
	}
	o, _ = zos(t, exitOK, "status", "shop", "--ledger", url, "--root", root)
	contains(t, o, "shop version 1 (entry 2): REGISTERED", "no node has enrolled yet")
	_, e = zos(t, exitRefused, "stop", "shop", "--key", keys["operator"], "--ledger", url, "--root", root)
	contains(t, e, `"author" has 0 of 1`)
	o, _ = zos(t, exitOK, "stop", "shop", "--key", keys["author"], "--reason", "enough", "--ledger", url, "--root", root)
	contains(t, o, "is entry 4")
	o, _ = zos(t, exitOK, "status", "--ledger", url, "--root", root)
	contains(t, o, "STOPPED")
	o, _ = zos(t, exitOK, "ledger", "verify", url, "--root", root)
	contains(t, o, "all is well")
	o, _ = zos(t, exitOK, "ledger", "verify", led, "--root", root, "--json")
	contains(t, o, `"size":6`)
	copied := filepath.Join(dir, "copy")
	o, _ = zos(t, exitOK, "ledger", "mirror", copied, "--once", "--ledger", url+",http://127.0.0.1:1", "--root", root)
	contains(t, o, "has 6 entries", "ok           "+url, "unreachable  http://127.0.0.1:1")
	mirrored, scrape := serveMirror(t, copied, url, root)
	o, _ = zos(t, exitOK, "ledger", "verify", mirrored, "--root", root, "--json")
	contains(t, o, `"size":6`)
	_, e = zos(t, exitUnreachable, "submit", env, "--ledger", mirrored)
	contains(t, e, "takes no entries")
	for until := time.Now().Add(time.Minute); !strings.Contains(fetched(t, scrape), "zos_ledger_sources_in_order 1") && time.Now().Before(until); {
		time.Sleep(50 * time.Millisecond)
	}
	contains(t, fetched(t, scrape), "zos_ledger_published_entries 6", "zos_ledger_sources_in_order 1")
	o, _ = zos(t, exitOK, "history", "shop", "--ledger", led, "--root", root)
	contains(t, o, "register", "author", "security", "enough")

	_, e = zos(t, exitRefused, "ledger", "revoke", keys["author"]+".pub", "--key", keys["author"], "--ledger", url, "--root", root)
	contains(t, e, `"root" has 0 of 1`)
	o, _ = zos(t, exitOK, "ledger", "revoke", keys["author"]+".pub", "--key", keys["root"], "--ledger", url, "--root", root)
	contains(t, o, "is entry 6")

	_, e = zos(t, exitUnreachable, "status", "--ledger", "http://127.0.0.1:1", "--root", root)
	contains(t, e, "zos ledger serve")
	_, e = zos(t, exitUsage, "status", "--ledger", url)
	contains(t, e, "--root is needed", "root.json")
	_, e = zos(t, exitNotFound, "history", "ship", "--ledger", url, "--root", root)
	contains(t, e, "not on the ledger")
	_, e = zos(t, exitNotFound, "audit", "17", "--ledger", url, "--root", root)
	contains(t, e, "not on the ledger")
	_, e = zos(t, exitNotFound, "submit", "no-such-file", "--ledger", url)
	contains(t, e, "no such file")
	other := ledgertest.New(t)
	_, e = zos(t, exitRefused, "status", "--ledger", url, "--root", file(t, "root.json", other.RootEnv))
	contains(t, e, "no signature of a known key", "--root belongs to this ledger")
}

func TestStoryCommands(t *testing.T) {
	l := ledgertest.New(t)
	root := file(t, "root.json", l.RootEnv)
	n := l.Join("n1", 1024)
	l.Join("n2", 64)
	id := l.Must(l.Register("shop", 1, nil))
	l.Must(l.Register("huge", 1, func(d *spec.Deployment) { d.Machines[0].MemoryMiB = 8192 }))
	claim := l.Must(n.Claim(id))
	for _, p := range strings.Fields("detect match claim retrieve verify-signatures verify-resources verify-network fetch-metadata fetch-content plan network volumes start post-verify") {
		l.Must(n.Record(claim, p, "ok", map[string]string{"plan": ledgertest.Digest("plan")}))
	}
	l.Must(n.Record(claim, "running", "ok", nil))
	read := []string{"--ledger", l.Dir, "--root", root}

	o, _ := zos(t, exitOK, append([]string{"status"}, read...)...)
	contains(t, o, "shop version 1", "RUNNING", "last phase running ok", "huge version 1", "REGISTERED",
		"needs 8192 MiB memory, node has 512 MiB free", "needs 8192 MiB memory, node has 64 MiB free", "deployment shop has it on the node")
	o, _ = zos(t, exitOK, append([]string{"status", "shop", "--json"}, read...)...)
	var st struct{ Deployments []deploymentStatus }
	if err := json.Unmarshal([]byte(o), &st); err != nil || st.Deployments[0].Status != ledger.Running || st.Deployments[0].Claims[0].NodeName != "n1" {
		t.Errorf("status %s, %v", o, err)
	}
	o, _ = zos(t, exitOK, append([]string{"history", "shop"}, read...)...)
	contains(t, o, "INDEX", "register", "verify-signatures", "post-verify", "5ms", "node n1", "2049-03-22")
	o, _ = zos(t, exitOK, append([]string{"audit", "shop"}, read...)...)
	contains(t, o, "everything fits", "15 records")
	// Who agreed, as what, and why this node was allowed, stands in both.
	l.Must(revokeKey(l, "security1"))
	next := l.Root
	next.Version, next.Policy.Roles = 2, maps.Clone(next.Policy.Roles)
	next.Policy.Roles["security"] = l.Role(1, "security1", "security2")
	l.Must(l.Sign(ledger.TypeRoot, next, "root"))
	l.Must(l.Register("late", 1, func(d *spec.Deployment) { d.Gateways[0].Port = 8081 }))
	for _, command := range []string{"audit", "history"} {
		o, _ := zos(t, exitOK, append([]string{command, "shop"}, read...)...)
		contains(t, o, "agreed under root version 1: author 1 (needs 1), security 2 (needs 2)",
			"rank 0 (0 is first) of 1 eligible nodes, open places 1: allowed from window 0 (2049-03-22 04:26:40.000Z), claimed in window 0")
		o, _ = zos(t, exitOK, append([]string{command, "late"}, read...)...)
		contains(t, o, "agreed under root version 2: author 1 (needs 1), security 1 (needs 1)", "revoked by entry ")
	}
	export := filepath.Join(t.TempDir(), "export")
	_, e := zos(t, exitUsage, append([]string{"audit", "shop", "--export", export}, read...)...)
	contains(t, e, "--export-key")
	_, e = zos(t, exitOK, append([]string{"audit", "shop", "--export", export, "--export-key", keyFile(t, t.TempDir(), "auditor")}, read...)...)
	contains(t, e, "18 in-toto statements")

	// Whatever of a copy is not there is missed.
	for _, part := range []string{"root", "tile/0"} {
		there, aside := filepath.Join(l.Dir, part), filepath.Join(t.TempDir(), "aside")
		if err := os.Rename(there, aside); err != nil {
			t.Fatal(err)
		}
		code := map[string]int{"root": exitRefused, "tile/0": exitUnreachable}[part]
		o, e = zos(t, code, append([]string{"audit", "shop"}, read...)...)
		contains(t, o+e, part, "no such file")
		if err := os.Rename(aside, there); err != nil {
			t.Fatal(err)
		}
	}

	l.Must(n.Record(claim, "running", "ok", map[string]string{"plan": ledgertest.Digest("other")}))
	o, e = zos(t, exitRefused, append([]string{"audit", "shop"}, read...)...)
	contains(t, o, "WRONG")
	contains(t, e, "1 discrepancies")
	o, _ = zos(t, exitRefused, append([]string{"audit", "shop", "--json"}, read...)...)
	contains(t, o, `"discrepancies":["entry `)

	tile := filepath.Join(l.Dir, "tile", "entries", "000.p")
	list, err := os.ReadDir(tile)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(tile, list[len(list)-1].Name())
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, e = zos(t, exitRefused, append([]string{"audit", "shop"}, read...)...)
	contains(t, e, "ledger is forged")
}

func revokeKey(l *ledgertest.Log, name string) []byte {
	return l.Sign(ledger.TypeRevoke, ledger.Revoke{Key: l.Keys[name].PublicKey(), Reason: "lost"}, "root")
}

// TestGivenBack: a node that is shut down in order gives its claim back. That
// is no failure of the deployment, and nothing that an audit has to find.
func TestGivenBack(t *testing.T) {
	l := ledgertest.New(t)
	n := l.Join("n1", 1024)
	id := l.Must(l.Register("shop", 1, nil))
	claim := l.Must(n.Claim(id))
	for _, p := range strings.Fields("detect match claim retrieve") {
		l.Must(n.Record(claim, p, "ok", nil))
	}
	l.Must(n.Record(claim, "retrieve", "undone", nil))
	const why = "the node shuts down"
	l.Must(n.Entry(ledger.TypeRelease, ledger.Release{Claim: claim, Reason: why, Acted: l.Acted()}))
	l.Must(n.Entry(ledger.TypeClose, ledger.Close{Claim: claim, Records: 5, Result: "failed", Reason: why, Acted: l.Acted()}))
	read := []string{"shop", "--ledger", l.Dir, "--root", file(t, "root.json", l.RootEnv)}
	o, _ := zos(t, exitOK, append([]string{"status"}, read...)...)
	contains(t, o, "REGISTERED", "given back: the node shuts down", "last phase retrieve undone")
	if strings.Contains(o, "failed") {
		t.Errorf("reads as a failure:\n%s", o)
	}
	o, _ = zos(t, exitOK, append([]string{"audit"}, read...)...)
	contains(t, o, "everything fits", "given back")
}
