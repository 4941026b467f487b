// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/clock/clocktest"
	"github.com/zos-node/zos/agent/phase"
	"github.com/zos-node/zos/agent/record"
	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec"
)

// signers of the test ledger's policy for deployments.
var signers = []string{"author", "security1", "security2"}

// judged holds an error against a part of it; "" wants none.
func judged(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("refused: %v", err)
	case want != "" && err == nil:
		t.Errorf("taken, want %q", want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Errorf("%q, want %q", err, want)
	}
}

// TestDetectAndMatch look before anything is claimed.
func TestDetectAndMatch(t *testing.T) {
	b := newBench(t)
	d := b.register(nil)
	named := func(name string, edit func(*spec.Deployment)) *ledger.Deployment {
		id := b.ledger.must(b.ledger.Register(name, 1, edit))
		return b.ledger.State().Deployment(id)
	}
	large := named("large", func(d *spec.Deployment) { d.Machines[0].MemoryMiB, d.Gateways = 100_000, nil })
	ctx := context.Background()
	var out phase.Out
	judged(t, New(b.world, d, -1, 0).detect(ctx, &out), "")
	if out.Digests["spec"] != d.Digest {
		t.Errorf("out %+v", out)
	}
	judged(t, New(b.world, &ledger.Deployment{ID: 1 << 20, Spec: d.Spec}, -1, 0).detect(ctx, &out), "is no deployment")
	judged(t, New(b.world, &ledger.Deployment{ID: 1 << 20, Spec: d.Spec}, -1, 0).match(ctx, &out), "is no deployment")
	judged(t, New(b.world, large, -1, 0).match(ctx, &out), "needs 100000 MiB memory")
	// One that is claimed already does not have to fit once more.
	claim := b.ledger.must(b.node.Claim(d.ID))
	out = phase.Out{}
	judged(t, New(b.world, d, claim, 0).match(ctx, &out), "")
	if out.Detail != "claimed before" {
		t.Errorf("out %+v", out)
	}
	two := named("two", func(d *spec.Deployment) { d.Gateways = nil })
	err := New(b.world, two, -1, 1).match(ctx, &out)
	judged(t, err, "overlaps")
	if here := (local{}); !errors.As(err, &here) {
		t.Errorf("a network that is taken on this node alone: %v", err)
	}
}

// TestRetrieve: the ledger client has proven the bytes, and they are still held
// against what the deployment is known by.
func TestRetrieve(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*bench, *ledger.Deployment)
		want string
	}{
		"as registered": {func(*bench, *ledger.Deployment) {}, ""},
		"no envelope":   {func(_ *bench, d *ledger.Deployment) { d.Envelope = []byte("{}") }, "payloadType"},
		"envelope of something else": {func(b *bench, d *ledger.Deployment) {
			d.Envelope = b.ledger.Sign(ledger.TypeStop, b.ledger.Spec("shop", 1, nil), signers...)
		}, "want " + fmt.Sprintf("%q", spec.PayloadType)},
		"another spec, well signed": {func(b *bench, d *ledger.Deployment) { d.Envelope = b.ledger.Register("shop", 2, nil) }, "have digest sha256:"},
		"bytes that are no spec": {func(b *bench, d *ledger.Deployment) {
			raw := []byte(`{"version": 1}`)
			d.Envelope, d.Digest = b.ledger.Sign(spec.PayloadType, raw, signers...), spec.Digest(raw)
		}, "spec: "},
		"no such entry": {func(_ *bench, d *ledger.Deployment) { d.ID = 1 << 20 }, "is no deployment"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			d := b.register(nil)
			l, out := New(b.world, d, -1, 0), phase.Out{}
			c.edit(b, d)
			l.st.Digest, l.st.Deployment = d.Digest, d.ID
			judged(t, l.retrieve(context.Background(), &out), c.want)
			if c.want == "" && (out.Digests["spec"] != d.Digest || out.Digests["envelope"] != ledger.HashEntry(d.Envelope) || out.Bytes != int64(len(d.Envelope)) || l.spec == nil) {
				t.Errorf("out %+v", out)
			}
		})
	}
}

// TestVerifySignatures: the node checks the policy itself, whatever the ledger
// let in.
func TestVerifySignatures(t *testing.T) {
	altered := func(b *bench, d *ledger.Deployment, edit func(*sign.Envelope)) {
		env, err := sign.DecodeEnvelope(d.Envelope)
		if err != nil {
			b.t.Fatal(err)
		}
		edit(env)
		if d.Envelope, err = json.Marshal(env); err != nil { // Encode would refuse it
			b.t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		edit func(*bench, *Life, *ledger.Deployment)
		want string
	}{
		"as registered": {func(*bench, *Life, *ledger.Deployment) {}, ""},
		"one signature short": {func(b *bench, _ *Life, d *ledger.Deployment) {
			d.Envelope = b.ledger.Sign(spec.PayloadType, b.ledger.Spec("shop", 1, nil), "author", "security1")
		}, `"security" has 1 of 2`},
		"one key twice": {func(b *bench, _ *Life, d *ledger.Deployment) {
			altered(b, d, func(e *sign.Envelope) { e.Signatures[2] = e.Signatures[1] })
		}, "second signature of the key"},
		"a key of nobody": {func(b *bench, _ *Life, d *ledger.Deployment) {
			b.ledger.Keys["stranger"] = ledgertest.Key(t)
			d.Envelope = b.ledger.Sign(spec.PayloadType, b.ledger.Spec("shop", 1, nil), "author", "security1", "stranger")
		}, `"security" has 1 of 2`},
		"altered payload": {func(b *bench, _ *Life, d *ledger.Deployment) {
			altered(b, d, func(e *sign.Envelope) { e.Payload = []byte(strings.Replace(string(e.Payload), "512", "513", 1)) })
		}, "signature"},
		"signatures of another namespace": {func(b *bench, _ *Life, d *ledger.Deployment) {
			stop := b.ledger.Envelope(ledger.TypeStop, b.ledger.Spec("shop", 1, nil), signers...)
			altered(b, d, func(e *sign.Envelope) { e.Signatures = stop.Signatures })
		}, "namespace"},
		"no envelope":                {func(_ *bench, _ *Life, d *ledger.Deployment) { d.Envelope = []byte("{}") }, "payloadType"},
		"a role that the spec wants": {func(_ *bench, l *Life, _ *ledger.Deployment) { l.spec.Security.RequiredRoles = []string{"operator"} }, `"operator" has 0 of 1`},
		"a root that is not there":   {func(_ *bench, _ *Life, d *ledger.Deployment) { d.RootVersion = 9 }, "root of trust version 9 is not on the ledger"},
		"no such entry":              {func(_ *bench, l *Life, _ *ledger.Deployment) { l.st.Deployment = 1 << 20 }, "is no deployment"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			d := b.register(nil)
			l, out := New(b.world, d, -1, 0), phase.Out{}
			if err := l.retrieve(context.Background(), &out); err != nil {
				t.Fatal(err)
			}
			c.edit(b, l, d)
			judged(t, l.verifySignatures(context.Background(), &out), c.want)
			if c.want == "" && (!strings.HasPrefix(out.Detail, "root version 1; author SHA256:") || strings.Count(out.Detail, "security SHA256:") != 2 || out.Digests["root"] == "") {
				t.Errorf("out %+v", out)
			}
		})
	}
}

func TestVerifyResources(t *testing.T) {
	for name, c := range map[string]struct {
		edit  func(*bench, *Life)
		want  string
		again bool // the claim is given back
	}{
		"fits":                      {func(*bench, *Life) {}, "", false},
		"no capacity":               {func(b *bench, _ *Life) { b.world.Node = "SHA256:nobody" }, "no capacity", false},
		"another architecture":      {func(_ *bench, l *Life) { l.spec.Placement.Arch = "arm64" }, "arm64", false},
		"another hypervisor":        {func(_ *bench, l *Life) { l.spec.Machines[0].Hypervisor = "cloud-hypervisor" }, "cloud-hypervisor", false},
		"the driver is another one": {func(b *bench, l *Life) { l.spec.Machines[0].Hypervisor = "qemu"; b.world.Driver = renamed{b.driver} }, "this node runs other", false},
		"memory is not known": {func(b *bench, _ *Life) {
			b.world.Resources = func() (int64, error) { return 0, errors.New("no meminfo") }
		}, "no meminfo", false},
		"too little memory":  {func(b *bench, _ *Life) { b.memory = 511 }, "511 MiB are free", true},
		"just enough memory": {func(b *bench, _ *Life) { b.memory = 512 }, "", false},
		"no such entry":      {func(_ *bench, l *Life) { l.st.Deployment = 1 << 20 }, "is no deployment", false},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			d := b.register(nil)
			l, out := New(b.world, d, -1, 0), phase.Out{}
			if err := l.retrieve(context.Background(), &out); err != nil {
				t.Fatal(err)
			}
			c.edit(b, l)
			err := l.verifyResources(context.Background(), &out)
			judged(t, err, c.want)
			if err != nil && l.ending(err).Release != c.again {
				t.Errorf("given back: %t, want %t", !c.again, c.again)
			}
		})
	}
}

// renamed is the driver of another hypervisor.
type renamed struct{ vm.Driver }

func (renamed) Name() string { return "other" }

// TestClaimIsBelievedOnlyFromTheLedger: a receipt is a server's word.
func TestClaimIsBelievedOnlyFromTheLedger(t *testing.T) {
	b := newBench(t)
	other := b.ledger.Join("n2", 4096)
	d := b.register(nil)
	two := b.ledger.must(b.ledger.Register("two", 1, nil))
	b.ledger.Pass(10_000)
	theirs := b.ledger.must(other.Claim(two))
	mine := b.ledger.must(b.node.Claim(d.ID))
	ctx := context.Background()
	l := New(b.world, d, -1, 0)
	judged(t, l.granted(ctx, mine), "")
	judged(t, l.granted(ctx, theirs), "is another claim")
	l.st.Deployment = two
	judged(t, l.granted(ctx, mine), "is another claim")
	l.st.Deployment = d.ID

	clk := clocktest.New(time.Now())
	l.world.Clock = clk
	end := make(chan error, 1)
	go func() { end <- l.granted(ctx, 1<<20) }()
	b.poll("the end of the wait", func() bool {
		clk.Advance(grantTimeout)
		return len(end) == 1
	})
	judged(t, <-end, "is not on the ledger")
	gone, cancel := context.WithCancelCause(ctx)
	cancel(errors.New("the test's cause"))
	judged(t, l.granted(gone, 1<<20), "the test's cause")

	// A claim that was granted to an earlier agent.
	for claim, want := range map[int64]string{mine: "", theirs: "is not active", 1 << 20: "is not active"} {
		again := New(b.world, d, claim, 0)
		run, cancel := context.WithCancel(ctx)
		judged(t, again.claim(run, &phase.Out{}), want)
		cancel()
	}
	b.ledger.must(b.node.Entry(ledger.TypeRelease, ledger.Release{Claim: mine, Reason: "x", Acted: b.ledger.Acted()}))
	judged(t, l.granted(ctx, mine), "is released already")
	judged(t, New(b.world, d, mine, 0).claim(ctx, &phase.Out{}), "is not active")
}

// TestEnding: what is this node's trouble, or only late, gives the claim back;
// what is wrong with the deployment does not, and whoever asked for the end is
// believed before what that broke.
func TestEnding(t *testing.T) {
	b := newBench(t)
	d := b.register(nil)
	for name, c := range map[string]struct {
		err   error
		again bool
	}{
		"the deployment's":   {errors.New("no"), false},
		"this node's":        {fmt.Errorf("x: %w", onlyHere(errors.New("no"))), true},
		"late":               {fmt.Errorf("x: %w", context.DeadlineExceeded), true},
		"cut short":          {fmt.Errorf("x: %w", context.Canceled), true},
		"without its record": {fmt.Errorf("x: %w", record.ErrRefused), true},
	} {
		l := New(b.world, d, -1, 0)
		if e := l.ending(c.err); e.Result != "failed" || e.Release != c.again || e.Reason != c.err.Error() || e.Kill {
			t.Errorf("%s: %+v", name, e)
		}
		asked := &Ending{Result: "stopped", Reason: "asked for"}
		l.End(asked)
		if e := l.ending(c.err); e != asked {
			t.Errorf("%s, when the end was asked for: %+v", name, e)
		}
	}
	if onlyHere(nil) != nil {
		t.Error("no error became one")
	}
}

// TestVerdict is what the ledger's word on a claim means for what runs.
func TestVerdict(t *testing.T) {
	b := newBench(t)
	d := b.register(nil)
	claim := b.ledger.must(b.node.Claim(d.ID))
	verdict := func(want string) {
		t.Helper()
		e := Verdict(b.ledger.State(), d.ID, claim)
		switch {
		case e == nil && want != "", e != nil && e.Result != want:
			t.Errorf("%+v, want %q", e, want)
		}
	}
	verdict("")
	if e := Verdict(b.ledger.State(), d.ID, 1<<20); e != nil {
		t.Errorf("a claim that is not known yet: %+v", e)
	}
	if e := Verdict(b.ledger.State(), 1<<20, claim); e != nil {
		t.Errorf("a deployment that is not known yet: %+v", e)
	}
	b.ledger.must(b.node.Entry(ledger.TypeRelease, ledger.Release{Claim: claim, Reason: "x", Acted: b.ledger.Acted()}))
	verdict("failed")
	b.ledger.must(b.ledger.Register("shop", 2, nil))
	verdict("replaced")
	two := b.ledger.State().Deployments()[1]
	next := b.ledger.must(b.ledger.Sign(ledger.TypeStop, ledger.Stop{Deployment: two.ID, Name: "shop", Reason: "x"}, "author"))
	if e := Verdict(b.ledger.State(), two.ID, claim); e == nil || e.Result != "stopped" || !strings.Contains(e.Reason, fmt.Sprint(next)) {
		t.Errorf("stopped: %+v", e)
	}
}
