// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/audit"
	"github.com/zos-node/zos/ledger/ledgertest"
)

func phases() []string {
	return strings.Fields("detect match claim retrieve verify-signatures verify-resources verify-network fetch-metadata fetch-content plan network volumes start post-verify running")
}

// run takes a deployment through its life on a log; digests are what the
// record of a phase names.
func run(t *testing.T, l *ledgertest.Log, names []string, digests map[string]map[string]string) (id, claim int64) {
	t.Helper()
	n := l.Join("n1", 4096)
	l.Join("n2", 64)
	id = l.Must(l.Register("shop", 1, nil))
	l.Must(l.Register("other", 1, nil))
	claim = l.Must(n.Claim(id))
	for _, p := range names {
		l.Must(n.Record(claim, p, "ok", digests[p]))
	}
	l.Must(n.Entry(ledger.TypeRenew, ledger.Renew{Claim: claim, Acted: l.Acted()}))
	l.Must(n.Entry(ledger.TypeIncident, ledger.Incident{Claim: claim, Kind: "chunk-mismatch", Detail: "mirror", Acted: l.Acted()}))
	l.Must(l.Sign(ledger.TypeStop, ledger.Stop{Deployment: id, Name: "shop", Reason: "done"}, "author"))
	l.Must(n.Entry(ledger.TypeClose, ledger.Close{Claim: claim, Records: int64(len(names)), Result: "stopped", Acted: l.Acted()}))
	return id, claim
}

func TestAudit(t *testing.T) {
	l := ledgertest.New(t)
	plan := ledgertest.Digest("plan")
	id, claim := run(t, l, phases(), map[string]map[string]string{
		"plan": {"plan": plan}, "running": {"plan": plan, "guestKey/web": "ssh-ed25519 x"}, "fetch-content": {"kernel/web": ledgertest.Digest("kernel")},
	})
	for _, where := range []string{l.Dir, l.Serve()} {
		r, err := audit.Run(t.Context(), audit.Config{Root: l.RootEnv, Ledger: where, Deployment: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		if !r.OK() || r.Records != 15 || r.Proofs != len(r.Story.Items) || len(r.Story.Items) != 21 || r.Signatures != 23 || r.Story.Status != ledger.Stopped {
			t.Errorf("report %+v, %d items", r, len(r.Story.Items))
		}
		if len(r.Claims) != 1 || r.Claims[0].Claim != claim || r.Claims[0].Plan != plan || r.Claims[0].Result != "stopped" {
			t.Errorf("claims %+v", r.Claims)
		}
	}
	var none *audit.NotFound
	if _, err := audit.Run(t.Context(), audit.Config{Root: l.RootEnv, Ledger: l.Dir, Deployment: "ship"}); !errors.As(err, &none) {
		t.Errorf("unknown deployment: %v", err)
	}
	c := l.Client("", l.Dir)
	if err := c.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	st, err := audit.History(t.Context(), c, "shop")
	if err != nil {
		t.Fatal(err)
	}
	first := st.Items[0]
	if first.Kind != "register" || first.Index != id || first.TimeMs != ledgertest.Epoch || len(first.Signers) != 3 {
		t.Errorf("first item %+v", first)
	}
	roles := map[string]int{}
	for _, s := range first.Signers {
		roles[s.Role]++
	}
	if roles["author"] != 1 || roles["security"] != 2 || st.Items[1].Signers[0].Role != "node n1" {
		t.Errorf("signers %+v, %+v", first.Signers, st.Items[1].Signers)
	}
}

func TestDiscrepancies(t *testing.T) {
	plan := map[string]string{"plan": ledgertest.Digest("plan")}
	for _, tt := range []struct {
		name    string
		phases  []string
		digests map[string]map[string]string
		says    string
	}{
		{"phase left out", append(phases()[:4:4], phases()[5:]...), nil, "phase verify-signatures is not recorded"},
		{"phases in another order", append([]string{"match", "detect"}, phases()[2:]...), nil, "phase detect comes after match"},
		{"running another plan", phases(), map[string]map[string]string{"plan": plan, "running": {"plan": ledgertest.Digest("evil")}}, "before it was"},
		{"another kernel", phases(), map[string]map[string]string{"fetch-content": {"kernel/web": ledgertest.Digest("evil")}}, "kernel/web is"},
		{"another image", phases(), map[string]map[string]string{"start": {"verityRoot/web": "00"}}, "verityRoot/web is"},
		{"another spec", phases(), map[string]map[string]string{"retrieve": {"spec": ledgertest.Digest("evil")}}, "names spec"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := ledgertest.New(t)
			run(t, l, tt.phases, tt.digests)
			r, err := audit.Run(t.Context(), audit.Config{Root: l.RootEnv, Ledger: l.Dir, Deployment: "shop"})
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Discrepancies) != 1 || !strings.Contains(r.Discrepancies[0], tt.says) {
				t.Errorf("discrepancies are %q, want one with %q", r.Discrepancies, tt.says)
			}
		})
	}
}

// TestEveryByteCounts flips one bit of each byte of each file of a log, one
// after the other, and wants each audit to fail.
func TestEveryByteCounts(t *testing.T) {
	l := ledgertest.New(t)
	l.Must(l.Register("shop", 1, nil))
	l.Must(l.Register("blog", 1, nil), l.Register("wiki", 1, nil))
	pass := func() bool {
		r, err := audit.Run(t.Context(), audit.Config{Root: l.RootEnv, Ledger: l.Dir, Deployment: "shop"})
		return err == nil && r.OK()
	}
	if !pass() {
		t.Fatal("the log does not pass as it is")
	}
	files := 0
	err := filepath.WalkDir(l.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		good, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		// All bytes of small files, every 97th of large ones, and the ends.
		step := 1
		if len(good) > 500 {
			step = 97
		}
		for at := 0; at < len(good); at += step {
			if len(good)-at <= step {
				at = len(good) - 1
			}
			bad := append([]byte{}, good...)
			bad[at] ^= 1 << (at % 8)
			if err := os.WriteFile(path, bad, 0o644); err != nil {
				return err
			}
			if pass() {
				t.Errorf("%s: byte %d does not matter", path, at)
			}
		}
		return os.WriteFile(path, good, 0o644)
	})
	if err != nil || files < 6 {
		t.Fatalf("%d files, %v", files, err)
	}
	if !pass() {
		t.Error("the log does not pass any more")
	}
}
