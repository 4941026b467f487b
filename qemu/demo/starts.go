// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// benchApp is one machine of the example behind the gateway.
const benchApp = `metadata:
  name: %s
placement:
  arch: amd64
networks:
  - name: inside
    subnet: 10.43.0.0/24
gateways:
  - name: http
    port: 8000
    machine: app
    targetPort: 8080
machines:
  - name: app
    memoryMiB: 192
    kernel: file:%[2]s/guest/vmlinuz
    initramfs: file:%[2]s/guest/initramfs.cpio
    image: oci:%[2]s/oci/app
    interfaces:
      - network: inside
        address: 10.43.0.10
    health:
      kind: http
      port: 8080
      path: /healthz
`

// starts measures pairs: claim committed to the first byte that the workload
// wrote, with everything local, against the same hypervisor with the same
// kernel, initramfs, command line and disk, started by hand. By hand has two
// ends: the first byte of the same workload, which is where ours ends, too, and
// the guest's first sign of life, which is earlier by what the guest itself has
// to do; that one is the stricter. When the first page came through the
// gateway is told beside them: what is started by hand has no network.
func (b *bench) starts(ctx context.Context) ([]string, error) {
	b.res.Start = pair{What: "claim committed to first byte from the workload, image local",
		Than: "the same hypervisor, kernel, initramfs and disk by hand, to the first byte from the same workload", Goal: 1.3}
	b.res.Guest = pair{What: b.res.Start.What, Than: "the same by hand, but only to the guest's PID 1", Goal: 1.3}
	var argv []string
	var config json.RawMessage
	for round := range rounds + 1 {
		name := fmt.Sprintf("bench-%d", round)
		id, err := b.deploy(ctx, name)
		if err != nil {
			return nil, err
		}
		limited, cancel := context.WithTimeout(ctx, runLimit)
		// Nothing is asked over and over meanwhile, of the node or of the ledger:
		// that would only take time from what is measured.
		_, _, _, err = b.m.Console.Expect(limited, 0, regexp.MustCompile(`msg="VM started" .*deployment=`+name+` `))
		if err == nil {
			err = b.m.Fault(limited, map[string]any{"do": "heard", "file": outputs}, nil)
		}
		first := time.Now()
		if err == nil {
			err = firstByte(limited, fmt.Sprintf("http://127.0.0.1:%d/", b.port))
		}
		page := time.Now()
		cancel()
		if err != nil {
			return nil, &problem{what: "first byte of " + name, expected: "output, and then a page", todo: "read " + filepath.Join(b.run1, "bench-console.log"), err: err}
		}
		claimed, err := b.claimed(ctx, name)
		if err != nil {
			return nil, err
		}
		ours := first.Sub(claimed)
		if argv == nil {
			if argv, err = b.byHand(ctx); err != nil {
				return nil, err
			}
			if config, err = b.guestConfig(ctx); err != nil {
				return nil, err
			}
		}
		if err := b.finish(ctx, name, id); err != nil {
			return nil, err
		}
		if round == 0 {
			b.res.Fetching = b.res.Phases
			continue // it fetched the image
		}
		var took struct{ Ms, WorkloadMs int64 }
		hand := map[string]any{"do": "hand", "argv": argv, "file": "/tmp/hand.log", "until": "guest: PID 1 started"}
		if b.build.Hypervisor.Name == "cloud-hypervisor" {
			hand["argv"] = append(slices.Clone(argv), "--vsock", "cid=4242,socket="+handSocket)
			hand["vsock"], hand["config"] = handSocket, config
		}
		err = b.m.Fault(ctx, hand, &took)
		if err != nil && b.accel.Name == "tcg" && strings.Contains(err.Error(), "Kernel panic") {
			fmt.Fprintln(os.Stdout, "        the emulator broke the guest's kernel; by hand once more")
			err = b.m.Fault(ctx, hand, &took)
		}
		if err != nil {
			return nil, err
		}
		b.res.PageMs = append(b.res.PageMs, page.Sub(claimed).Milliseconds())
		b.res.Guest.OursMs, b.res.Guest.BaseMs = append(b.res.Guest.OursMs, ours.Milliseconds()), append(b.res.Guest.BaseMs, took.Ms)
		if took.WorkloadMs > 0 {
			b.res.Start.OursMs, b.res.Start.BaseMs = b.res.Guest.OursMs, append(b.res.Start.BaseMs, took.WorkloadMs)
		}
	}
	b.res.Guest.finish()
	line := func(p pair, until string) string {
		return fmt.Sprintf("%v ms against %v ms by hand to %s: %.2f times (goal %.1f)", p.OursMs, p.BaseMs, until, p.Ratio, p.Goal)
	}
	lines := []string{line(b.res.Guest, "PID 1 (the stricter)")}
	if len(b.res.Start.BaseMs) == 0 {
		b.res.Start.Than = "SKIP: by hand to the workload is measured with Cloud Hypervisor only"
		return append(lines, "SKIP by hand to the workload: not measured, Cloud Hypervisor only"), nil
	}
	b.res.Start.finish()
	return append(lines, line(b.res.Start, "the workload's first byte"),
		fmt.Sprintf("%v ms to the first page through the gateway", b.res.PageMs)), nil
}

// outputs is where the agent keeps what workloads write.
const outputs = "/run/zos/output"

// handSocket is the hypervisor's end of the guest's vsock in a start by hand.
const handSocket = "/tmp/hand.vsock"

// guestConfig is what the agent told the guest that runs, without a network:
// nothing is connected to what is started by hand.
func (b *bench) guestConfig(ctx context.Context) (json.RawMessage, error) {
	var list struct{ Files []string }
	if err := b.m.Fault(ctx, map[string]any{"do": "list", "file": "/run/zos/state/deployments/*.json"}, &list); err != nil {
		return nil, err
	}
	if len(list.Files) != 1 {
		return nil, fmt.Errorf("deployments in the node: %v, want one", list.Files)
	}
	var file struct{ Text string }
	if err := b.m.Fault(ctx, map[string]any{"do": "read", "file": list.Files[0]}, &file); err != nil {
		return nil, err
	}
	var state struct {
		Plan struct {
			Machines []struct{ Guest map[string]any }
		}
	}
	if err := json.Unmarshal([]byte(file.Text), &state); err != nil {
		return nil, fmt.Errorf("state of the deployment: %w", err)
	}
	if len(state.Plan.Machines) != 1 {
		return nil, fmt.Errorf("%d machines, want one", len(state.Plan.Machines))
	}
	guest := state.Plan.Machines[0].Guest
	guest["interfaces"] = []any{}
	return json.Marshal(guest)
}

// deploy renders, signs and submits one deployment and returns its index.
func (b *bench) deploy(ctx context.Context, name string) (int64, error) {
	abs, err := filepath.Abs(b.dir)
	if err != nil {
		return 0, err
	}
	file := func(ext string) string { return filepath.Join(b.run1, name+ext) }
	if err := os.WriteFile(file(".yaml"), fmt.Appendf(nil, benchApp, name, abs), 0o644); err != nil {
		return 0, fmt.Errorf("deployment: %w", err)
	}
	if _, err := b.command(ctx, b.zos, "render", file(".yaml"), "--store", b.path("store"), "-o", file(".json")); err != nil {
		return 0, err
	}
	if err := b.signAs(ctx, file(".json"), file(".envelope")); err != nil {
		return 0, err
	}
	return b.submitFile(ctx, file(".envelope"))
}

// claimed waits for the claim and returns the ledger's time of it.
func (b *bench) claimed(ctx context.Context, name string) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	for {
		h, err := b.historyOf(ctx, name)
		if err != nil {
			return time.Time{}, err
		}
		for _, it := range h.Items {
			if it.Kind == "claim" {
				return time.UnixMilli(it.TimeMs), nil
			}
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("%s was not claimed: %w", name, ctx.Err())
		}
	}
}

// finish waits until all of a deployment is recorded, keeps its phases, and
// stops it.
func (b *bench) finish(ctx context.Context, name string, id int64) error {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	if err := b.until(ctx, name, "running"); err != nil {
		return err
	}
	h, err := b.historyOf(ctx, name)
	if err != nil {
		return err
	}
	b.res.Phases = nil
	for _, it := range h.Items {
		if it.Kind == "record" {
			b.res.Phases = append(b.res.Phases, phaseTime{it.Phase, it.DurationMs, it.Bytes})
		}
	}
	if _, err := b.command(ctx, b.zos, "stop", "--ledger", b.ledgerURL, "--root", b.root, "--key", filepath.Join(b.run1, "keys", "author"),
		"--reason", "measured", name); err != nil {
		return err
	}
	return b.until(ctx, name, "stopped")
}

func (b *bench) until(ctx context.Context, name, status string) error {
	for {
		h, err := b.historyOf(ctx, name)
		if err != nil {
			return err
		}
		if h.Status == status {
			return nil
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s is %s, not %s: %w", name, h.Status, status, ctx.Err())
		}
	}
}

func (c *chain) historyOf(ctx context.Context, name string) (historyInfo, error) {
	var h historyInfo
	out, err := c.command(ctx, c.zos, "history", name, "--ledger", c.ledgerURL, "--root", c.root, "--json")
	if err != nil {
		return h, err
	}
	if err := json.Unmarshal([]byte(out), &h); err != nil {
		return h, fmt.Errorf("decode the history: %w", err)
	}
	return h, nil
}

// kept are the options of a running hypervisor that a start by hand takes
// over: what the guest is made of. The others (sockets, network, events) are
// of the agent's making.
var kept = map[string][]string{
	"cloud-hypervisor": {"--kernel", "--initramfs", "--cmdline", "--cpus", "--memory", "--rng", "--disk"},
	"qemu":             {"-M", "-accel", "-cpu", "-smp", "-m", "-display", "-kernel", "-initrd", "-append", "-L", "-blockdev"},
}

// byHand turns the arguments of the running hypervisor into what a person
// would type.
func (b *bench) byHand(ctx context.Context) ([]string, error) {
	var in inside
	if err := b.m.Fault(ctx, map[string]any{"do": "stat"}, &in); err != nil {
		return nil, err
	}
	for _, p := range in.Processes {
		name, ok := map[string]string{"cloud-hypervisor": "cloud-hypervisor", "qemu-system-x86_64": "qemu"}[p.Name]
		if !ok {
			continue
		}
		program := b.build.Hypervisor.Path
		argv := []string{program}
		for i := 1; i < len(p.Args)-1; i++ {
			if slices.Contains(kept[name], p.Args[i]) {
				argv = append(argv, p.Args[i], p.Args[i+1])
			}
			if p.Args[i] == "-device" && strings.HasPrefix(p.Args[i+1], "virtio-blk-pci") {
				argv = append(argv, p.Args[i], p.Args[i+1])
			}
		}
		if name == "qemu" {
			return append(argv, "-nodefaults", "-no-user-config", "-serial", "file:/tmp/hand.log"), nil
		}
		return append(argv, "--serial", "file=/tmp/hand.log", "--console", "off"), nil
	}
	return nil, errors.New("no hypervisor runs in the node")
}
