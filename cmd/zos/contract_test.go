// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/ledger/ledgertest"
)

// contract are the commands whose names are promised.
const contract = `render|check|sign|verify|submit|stop|status|release|rollout|history|audit|ledger init|ledger serve|ledger verify|ledger demo|ledger join|ledger peer|ledger invite|ledger leave|ledger mirror|ledger backup|ledger restore|ledger revoke|
image convert|image inspect|image verify|image serve|node build|node run|node capacity|node incidents`

// every is each command that does something.
func every(c *cobra.Command) []*cobra.Command {
	if !c.HasSubCommands() {
		return []*cobra.Command{c}
	}
	var all []*cobra.Command
	for _, sub := range c.Commands() {
		all = append(all, every(sub)...)
	}
	return all
}

// TestEveryCommand: each one is there under its name, has an example and
// --json, and refuses what it does not know with the exit code of README.
func TestEveryCommand(t *testing.T) {
	var names []string
	a := &app{}
	for _, top := range a.commands() {
		for _, c := range every(top) {
			name := c.CommandPath()
			names = append(names, name)
			if c.Short == "" || !strings.Contains(c.Example, "zos "+name) {
				t.Errorf("zos %s: short help %q, example %q", name, c.Short, c.Example)
			}
			out, errs := zos(t, exitOK, append(strings.Fields(name), "--help")...)
			contains(t, out, "Usage:", "Examples:", "--json")
			if errs != "" {
				t.Errorf("zos %s --help writes %q to standard error", name, errs)
			}
			_, errs = zos(t, exitUsage, append(strings.Fields(name), "--bogus")...)
			contains(t, errs, "--bogus", "see zos "+name+" --help")
			out, errs = zos(t, exitUsage, append(strings.Fields(name), "--json", "--bogus")...)
			var said struct {
				Error string `json:"error"`
				Exit  int    `json:"exit"`
			}
			if err := json.Unmarshal([]byte(errs), &said); err != nil || said.Exit != exitUsage || said.Error == "" || out != "" {
				t.Errorf("zos %s --json --bogus: %q, %q, %v", name, out, errs, err)
			}
			// No command takes so many, but for one that takes any.
			if name == "ledger peer" || name == "release" {
				continue
			}
			zos(t, exitUsage, append(strings.Fields(name), "a", "b", "c", "d")...)
		}
	}
	for _, want := range strings.Split(strings.ReplaceAll(contract, "\n", ""), "|") {
		if !slices.Contains(names, want) {
			t.Errorf("there is no zos %s", want)
		}
	}
}

// unheard is an address at which nobody listens.
func unheard(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

// busy serves a ledger that takes no entries now.
func busy(t *testing.T, l *ledgertest.Log, status int, why string) string {
	t.Helper()
	log := l.Handler()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			log.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(status)
		if err := json.NewEncoder(w).Encode(map[string]string{"error": why}); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// TestExitCodes: what is absent, what cannot be reached and what makes no
// sense, for every command, and what the message has to name.
func TestExitCodes(t *testing.T) {
	for _, name := range []string{"ZOS_LEDGER", "ZOS_ROOT", "ZOS_STORE", "SSH_AUTH_SOCK"} {
		t.Setenv(name, "")
	}
	l := ledgertest.New(t)
	l.Must(l.Register("shop", 1, nil))
	dir := t.TempDir()
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("root.json", l.RootEnv)
	write("entry.json", l.Register("other", 1, nil))
	write("junk", []byte("junk\n"))
	key := keyFile(t, dir, "key")
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	digest := ledgertest.Digest("none")
	damaged := filepath.Join(dir, "damaged")
	if err := os.CopyFS(damaged, os.DirFS(l.Dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(damaged, "tile", "entries")); err != nil {
		t.Fatal(err)
	}
	place := strings.NewReplacer("@dir", dir, "@led", "--ledger "+l.Dir+" --root "+dir+"/root.json",
		"@root", "--root "+dir+"/root.json", "@away", unheard(t), "@quota", busy(t, l, 429, "this key has submitted more than its share"), "@halted", busy(t, l, 503, "validator-2 is missing"), "@key", key, "@digest", digest)
	for _, c := range []struct {
		args string
		code int
		says string // words that the message has, separated by |
	}{
		{"render", exitUsage, "author's document"},
		{"render @dir/absent -o @dir/out", exitNotFound, "absent"},
		{"render @dir/junk", exitUsage, "--output is needed"},
		{"render @dir/junk -o @dir/out", exitRefused, "junk: "},
		{"check", exitUsage, "the spec to check"},
		{"check @dir/absent", exitNotFound, "absent"},
		{"check @dir/junk", exitRefused, "junk: |line 1"},
		{"check @dir/root.json", exitRefused, "envelope of a root|want a deployment"},
		{"sign --key @key --role author @dir/absent -o @dir/out", exitNotFound, "absent"},
		{"sign --key @dir/absent --role author @dir/entry.json -o @dir/out", exitNotFound, "absent"},
		{"sign --key @key --role author @dir/junk -o @dir/out", exitRefused, "junk: "},
		{"sign --key @key --role author --type poem @dir/junk -o @dir/out", exitUsage, "poem|deployment, voucher, expiring-voucher, stop, root"},
		{"verify @dir/absent", exitNotFound, "absent"},
		{"verify @dir/junk", exitRefused, "junk: "},
		{"verify @dir/entry.json --root @dir/absent", exitNotFound, "absent"},
		{"verify @dir/entry.json --root @dir/junk", exitRefused, "junk: "},
		{"submit @dir/absent --ledger @away", exitNotFound, "absent"},
		{"submit @dir/junk --ledger @away", exitRefused, "junk: "},
		{"submit @dir/entry.json --ledger @away", exitUnreachable, "zos ledger serve"},
		{"submit @dir/entry.json --ledger @away @root", exitUnreachable, "zos ledger serve"},
		{"submit @dir/entry.json --ledger ftp://x", exitUsage, "ftp://x|want http"},
		{"submit @dir/entry.json --ledger @dir/absent", exitNotFound, "absent"},
		{"submit @dir/entry.json @led", exitUsage, "is a folder|URL"},
		{"stop shop @led", exitUsage, "--key"},
		{"stop shop @led --key @key", exitUsage, "is a folder|URL"},
		{"stop shop --ledger @away @root --key @key", exitUnreachable, "zos ledger serve"},
		{"release @dir/absent @led --key @key", exitNotFound, "absent"},
		{"release @dir/junk @led --key @key", exitRefused, "junk: "},
		{"release @dir/junk @led", exitUsage, "--key"},
		{"release @led --key @key", exitUsage, "UKIs"},
		{"rollout @led --key @key", exitUsage, "version"},
		{"rollout 9.9 @led --key @key", exitNotFound, "9.9|zos release"},
		{"rollout 9.9 --ledger @away @root --key @key", exitUnreachable, "zos ledger serve"},
		{"status", exitUsage, "--root is needed"},
		{"status ship @led", exitNotFound, "ship|zos status"},
		{"status --ledger @away @root", exitUnreachable, "zos ledger serve"},
		{"status --ledger http:// @root", exitUsage, "want http"},
		{"status --ledger http://u:p@x @root", exitUsage, "want http"},
		{"status --ledger http://x/?q=1 @root", exitUsage, "want http"},
		{"status --ledger @dir/absent @root", exitNotFound, "absent"},
		{"status --ledger @dir/empty @root", exitNotFound, "no checkpoint|zos ledger init"},
		{"status --ledger @dir/empty --root @dir/absent", exitNotFound, "absent"},
		{"status @led --root @dir/junk", exitRefused, "junk: "},
		{"status @led --state @dir/junk", exitRefused, "state file|junk|remove it"},
		{"history ship @led", exitNotFound, "ship|zos status"},
		{"history shop --ledger @away @root", exitUnreachable, "zos ledger serve"},
		{"audit ship @led", exitNotFound, "ship|zos status"},
		{"audit shop --ledger @away @root", exitUnreachable, "zos ledger serve"},
		{"audit shop --ledger ftp://x @root", exitUsage, "want http"},
		{"audit shop --ledger @dir/empty @root", exitNotFound, "no checkpoint"},
		{"audit shop @led --root @dir/junk", exitRefused, "junk: "},
		{"audit shop @led --state @dir/junk", exitRefused, "state file|remove it"},
		{"audit shop @led --ledger @away", exitUsage, "one ledger at a time"},
		{"ledger init @dir/l", exitUsage, "--origin"},
		{"ledger init @dir/l --origin x --root-key @dir/absent --require deployment=root", exitNotFound, "absent"},
		{"ledger init @dir/l --origin a+b --root-key @key --require deployment=root", exitUsage, "--origin|a+b"},
		{"ledger init @dir/l --origin x --root-key @key --require deployment=root", exitUsage, "--role operator|--require voucher"},
		{"ledger init @dir/l --origin x --root-key @key --require deployment", exitUsage, "WHAT=ROLE"},
		{"ledger init @dir/l --origin x --root-key @key --require deployment=", exitUsage, "WHAT=ROLE"},
		{"ledger init @dir/l --origin x --root-key @key --role author=@dir/absent:1 --require deployment=author", exitNotFound, "absent"},
		{"ledger init @dir/l --origin x --root-key @key --role author=@dir/junk:1 --require deployment=author", exitRefused, "junk: "},
		{"ledger init @dir/l --origin x --root-key @key --role author=@key.pub --require deployment=author", exitUsage, "THRESHOLD"},
		{"ledger init @dir/l --origin x --root-key @key --role author=@key.pub:x --require deployment=author", exitUsage, "no number"},
		{"ledger init @dir/l --origin x --root-key @key --role author=@key.pub:1 --role author=@key.pub:1 --require deployment=author", exitUsage, "twice"},
		{"ledger init @dir --origin x --root-key @key --require deployment=root --require voucher=root", exitRefused, "is not empty"},
		{"ledger init @dir/l --origin x --root-key @key --require deployment=root --require voucher=root --name A_B", exitUsage, "--name|A_B|DNS label"},
		{"ledger init @dir/l --origin x --root-key @key --require deployment=root --require voucher=root --mesh foo", exitUsage, "--mesh|foo|host:port"},
		{"ledger init @dir/l --origin x --root-key @key --require deployment=root --require voucher=root --mesh 127.0.0.1:99999", exitUsage, "99999|65535"},
		{"ledger init @dir/l --origin x --root-key @key --require deployment=root --require voucher=root --mesh :8471", exitUsage, ":8471|reach it"},
		{"ledger init @dir/l --origin x --root-key @key --require deployment=root --require voucher=root --mesh 0.0.0.0:8471", exitUsage, "0.0.0.0|reach it"},
		{"ledger init @dir/l --origin x --root-key @key --require deployment=root --require voucher=root --mirror x", exitUsage, "--mirror|http"},
		{"ledger join @dir/l --name A_B --mesh 10.9.0.2:8471 --peer x@10.9.0.1:8471 @led", exitUsage, "--name|A_B|DNS label"},
		{"ledger join @dir/l --name n --mesh 10.9.0.2 --peer x@10.9.0.1:8471 @led", exitUsage, "--mesh|10.9.0.2|host:port"},
		{"ledger invite @dir/root.json --key @key @led", exitRefused, "root.json|want the validator.json"},
		{"ledger invite @dir/absent --key @key @led", exitNotFound, "absent"},
		{"ledger mirror @dir/m --every 0s @led", exitUsage, "--every 0s"},
		{"ledger mirror @dir/m --every -1s @led", exitUsage, "--every -1s"},
		{"ledger mirror @dir/m --snapshot-every 0 @led", exitUsage, "--snapshot-every 0"},
		{"ledger mirror @dir/m --metrics foo @led", exitUsage, "--metrics|foo|HOST:PORT"},
		{"ledger serve @dir/empty --metrics foo", exitUsage, "--metrics|foo|HOST:PORT"},
		{"ledger serve @dir/empty --quota -1", exitUsage, "--quota -1|0 for no limit"},
		{"ledger serve @dir/empty --quota NaN", exitUsage, "--quota NaN"},
		{"ledger serve @dir/empty --archive not-a-url", exitUsage, "not-a-url|http(s)://"},
		{"ledger serve @dir/absent", exitNotFound, "absent"},
		{"ledger serve @dir/empty", exitNotFound, "empty|zos ledger init"},
		{"ledger serve @dir/empty --listen nonsense", exitUsage, "nonsense|HOST:PORT"},
		{"ledger serve @dir/empty --listen 127.0.0.1:99999", exitUsage, "99999|HOST:PORT"},
		{"ledger mirror @dir/damaged --once @led", exitRefused, "own copy|move its folder away"},
		{"submit @dir/entry.json --ledger @quota", exitUnreachable, "takes no entry now|more than its share|again in 7s|--quota"},
		{"submit @dir/entry.json --ledger @halted @root", exitUnreachable, "takes no entry now|validator-2 is missing|or to another --ledger"},
		{"ledger verify @dir/absent @root", exitNotFound, "absent"},
		{"ledger verify @dir/empty @root", exitNotFound, "no checkpoint"},
		{"ledger verify @away @root", exitUnreachable, "zos ledger serve"},
		{"ledger voucher --key @dir/absent -o @dir/v", exitNotFound, "absent"},
		{"ledger voucher --key @key -o @dir/v --uses 0", exitUsage, "uses"},
		{"ledger voucher --key @key -o @dir/v --expires soon", exitUsage, "soon|30d"},
		{"ledger voucher --key @key -o @dir/v --expires 2020-01-31", exitUsage, "2020-01-31T00:00:00Z is past"},
		{"ledger voucher --key @key -o @dir/v --expires 30d @root", exitRefused, `"operator" has 0 of 1`},
		{"ledger voucher --key @key -o @dir/v @root", exitRefused, `"operator" has 0 of 1`},
		{"image convert oci:@dir/absent", exitUsage, "--store is needed"},
		{"image convert oci:@dir/absent --store @dir/s", exitNotFound, "absent"},
		{"image convert x:tag --store @dir/s", exitRefused, "is a tag"},
		{"image inspect @digest --store @dir/absent", exitNotFound, "absent"},
		{"image inspect @digest --store @dir/empty", exitNotFound, "no image of the id"},
		{"image inspect @digest --store @away", exitUnreachable, "connection refused"},
		{"image verify junk --store @dir/empty", exitUsage, "junk|sha256:"},
		{"image verify @digest --store @dir/absent", exitNotFound, "absent"},
		{"image verify @digest --store @away", exitUnreachable, "connection refused"},
		{"image serve @dir/absent --listen 127.0.0.1:0", exitNotFound, "absent"},
		{"image serve @dir/junk --listen 127.0.0.1:0", exitFailed, "junk: not a directory; a store is a folder"},
		{"image serve @dir/empty --listen nonsense", exitUsage, "nonsense|HOST:PORT"},
		{"image blob @dir/absent --store @dir/s", exitNotFound, "absent"},
		{"node build", exitUsage, "output"},
		{"node build -o @dir/out", exitUsage, "--root"},
		{"node build -o @dir/out --board bogus @root", exitNotFound, "bogus|qemu-x86_64"},
		{"node build -o @dir/out --root @dir/absent", exitNotFound, "absent"},
		{"node build -o @dir/out --root @dir/junk", exitRefused, "junk: "},
		{"node build -o @dir/out @root --seed @dir/absent", exitNotFound, "absent"},
		{"node build -o @dir/out @root --seed @dir/junk", exitRefused, "seed: "},
		{"node build -o @dir/out @root --source @dir/empty", exitNotFound, "--source|go.mod"},
		{"node guest --source @dir/empty --guest @dir/out", exitNotFound, "--source|go.mod"},
		{"node run @dir/absent", exitNotFound, "absent|zos node build"},
		{"node run @dir/empty", exitUsage, "node.img"},
		{"node run @dir/junk --forward x", exitUsage, "HOSTPORT:PORT"},
		{"node run @dir/junk --memory 1", exitUsage, "--memory 1"},
		{"node run @dir/junk --cpus -1", exitUsage, "--cpus -1"},
		{"node run @dir/junk --seed @dir/absent", exitNotFound, "absent"},
		{"node run @dir/junk --seed @dir/junk", exitRefused, "seed: "},
		{"node capacity", exitUsage, "--ledger is needed"},
		{"node capacity n9 @led", exitNotFound, `"n9"`},
		{"node capacity --ledger @away @root", exitUnreachable, "zos ledger serve"},
		{"node incidents", exitUsage, "--ledger is needed"},
		{"node incidents n9 @led", exitNotFound, `"n9"|zos node capacity`},
		{"node seed --name n --ledger http://x --voucher @dir/absent", exitNotFound, "absent"},
		{"node seed --name n --ledger http://x --voucher @dir/junk", exitRefused, "junk: "},
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), strings.Fields(place.Replace(c.args)), &out, &errs); code != c.code {
			t.Errorf("zos %s: exit code %d, want %d: %s", c.args, code, c.code, errs.String())
			continue
		}
		for _, w := range strings.Split(c.says, "|") {
			if !strings.Contains(errs.String(), w) {
				t.Errorf("zos %s does not name %q: %s", c.args, w, errs.String())
			}
		}
		if out.Len() > 0 {
			t.Errorf("zos %s failed and writes a result: %q", c.args, out.String())
		}
	}
	for _, name := range []string{"out", "l", "m", "v", "v.key"} {
		if _, err := os.Stat(filepath.Join(dir, name)); !os.IsNotExist(err) {
			t.Errorf("%s was written, although everything was refused (%v)", name, err)
		}
	}
}

// TestOlderAndOtherHistory: who kept a state file is told what to keep as
// proof of a ledger that was rolled back or forked.
func TestOlderAndOtherHistory(t *testing.T) {
	l := ledgertest.New(t)
	old, other := l.Fork(), l.Fork()
	l.Must(l.Register("shop", 1, nil))
	other.Must(other.Register("evil", 1, nil))
	root, state := file(t, "root.json", l.RootEnv), filepath.Join(t.TempDir(), "state")
	zos(t, exitOK, "status", "--ledger", l.Dir, "--root", root, "--state", state)
	for where, why := range map[string]string{old.Dir: "rolled back", other.Dir: "forked"} {
		for _, command := range [][]string{{"status"}, {"ledger", "verify"}, {"audit", "shop"}} {
			_, errs := zos(t, exitRefused, append(command, "--ledger", where, "--root", root, "--state", state)...)
			contains(t, errs, why, "keep the state file")
		}
	}
}
