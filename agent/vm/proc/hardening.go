// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// Hardening is what the kernel says about the VMM's process now, as opposed to
// what was asked for at its start.
func (p *Process) Hardening() (map[string]string, error) {
	root := fmt.Sprintf("/proc/%d", p.state.PID)
	h := map[string]string{"landlock": fmt.Sprintf("ABI %d", p.state.Landlock)}
	tasks, err := filepath.Glob(root + "/task/[0-9]*/status")
	if err != nil {
		return nil, err
	}
	filtered := 0
	for _, task := range tasks {
		status, err := readStatus(task)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, errGone) {
			continue // this thread ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		if status["Seccomp"] == "2" {
			filtered++
		}
	}
	h["seccomp"] = fmt.Sprintf("%d of %d threads", filtered, len(tasks))
	status, err := readStatus(root + "/status")
	if err != nil {
		return nil, err
	}
	for key, field := range map[string]string{"noNewPrivs": "NoNewPrivs", "capEff": "CapEff", "capPrm": "CapPrm", "capBnd": "CapBnd"} {
		h[key] = status[field]
	}
	h["uid"], _, _ = strings.Cut(status["Uid"], "\t")
	cgroup, err := os.ReadFile(root + "/cgroup")
	if err != nil {
		return nil, fmt.Errorf("cgroup of the VMM: %w", err)
	}
	h["cgroup"] = strings.TrimPrefix(strings.TrimSpace(string(cgroup)), "0::")
	if h["namespaces"], err = ownNamespaces(root); err != nil {
		return nil, err
	}
	return h, p.held(h, filtered)
}

// held fails closed: a VMM that is not held as it was started is no VMM to
// run a guest in.
func (p *Process) held(h map[string]string, filtered int) error {
	var errs []error
	const nothing = "0000000000000000"
	namespaces := "ipc,net,pid,uts"
	if p.state.Net {
		namespaces = "ipc,pid,uts"
	}
	for key, want := range map[string]string{"noNewPrivs": "1", "capEff": nothing, "capPrm": nothing, "capBnd": nothing, "uid": strconv.FormatUint(uint64(p.state.User), 10),
		"cgroup": filepath.Join("/", filepath.Base(Root), p.state.ID), "namespaces": namespaces} {
		if h[key] != want {
			errs = append(errs, fmt.Errorf("the VMM's %s is %q, not %q", key, h[key], want))
		}
	}
	if filtered == 0 {
		errs = append(errs, errors.New("no thread of the VMM has a seccomp filter"))
	}
	if p.state.Landlock < leastABI {
		errs = append(errs, errors.New("the VMM was started without landlock"))
	}
	return errors.Join(errs...)
}

var errGone = errors.New("thread is gone")

// readStatus reads /proc/…/status to a map.
func readStatus(name string) (map[string]string, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		if strings.Contains(err.Error(), "no such process") {
			return nil, errGone
		}
		return nil, fmt.Errorf("status of the VMM: %w", err)
	}
	status := map[string]string{}
	for s := bufio.NewScanner(strings.NewReader(string(b))); s.Scan(); {
		if key, value, ok := strings.Cut(s.Text(), ":"); ok {
			status[key] = strings.TrimSpace(value)
		}
	}
	return status, nil
}

// ownNamespaces names those that the VMM does not share with the agent.
func ownNamespaces(root string) (string, error) {
	var own []string
	for _, ns := range []string{"ipc", "mnt", "net", "pid", "user", "uts"} {
		its, err := os.Readlink(root + "/ns/" + ns)
		if err != nil {
			return "", fmt.Errorf("namespaces of the VMM: %w", err)
		}
		ours, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			return "", fmt.Errorf("namespaces of the agent: %w", err)
		}
		if its != ours {
			own = append(own, ns)
		}
	}
	return strings.Join(own, ","), nil
}

// Args is the VMM's command line, as the kernel keeps it.
func (p *Process) Args() ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.state.PID))
	if err != nil {
		return nil, fmt.Errorf("command line of the VMM: %w", err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00"), nil
}

// Tap is a tap device that the VMM holds open.
type Tap struct {
	FD   int
	Name string
	MTU  int
}

// Taps asks the kernel which taps are behind the VMM's open files, in the
// order of the fds, which is the order in which they were handed over.
func (p *Process) Taps() ([]Tap, error) {
	infos, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/[0-9]*", p.state.PID))
	if err != nil {
		return nil, err
	}
	var taps []Tap
	seen := map[string]bool{}
	sort.Slice(infos, func(i, j int) bool { return fdOf(infos[i]) < fdOf(infos[j]) })
	for _, name := range infos {
		status, err := readStatus(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // closed meanwhile
		}
		if err != nil {
			return nil, err
		}
		tap := status["iff"] // "iff" is how tun.c shows the interface
		if tap == "" || seen[tap] {
			continue
		}
		seen[tap] = true
		b, err := os.ReadFile("/sys/class/net/" + tap + "/mtu")
		if err != nil {
			return nil, fmt.Errorf("MTU of a tap: %w", err)
		}
		mtu, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			return nil, fmt.Errorf("MTU of a tap: %w", err)
		}
		taps = append(taps, Tap{FD: fdOf(name), Name: tap, MTU: mtu})
	}
	return taps, nil
}

// fdOf is -1 for a name that is no number, which /proc does not have.
func fdOf(name string) int {
	n, err := strconv.Atoi(filepath.Base(name))
	if err != nil {
		return -1
	}
	return n
}
