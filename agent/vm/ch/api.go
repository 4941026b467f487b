// SPDX-License-Identifier: Apache-2.0

package ch

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// api is a thin client of Cloud Hypervisor's REST interface over its Unix
// socket. Its status code is 500 for almost any refusal; what it means stands
// in the body, as a JSON list of strings, outermost error first.
type api struct{ http *http.Client }

const maxAnswer = 1 << 20

func newAPI(socket string) *api {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	// One request per connection: whoever adopts the VM finds no idle ones.
	return &api{http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

func (a *api) call(ctx context.Context, method, action string, in, out any) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cloud-hypervisor %s: %w", action, err)
		}
	}()
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	if in == nil {
		body = nil
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost/api/v1/"+action, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	answer, err := a.http.Do(req)
	if err != nil {
		return err
	}
	b, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if closed := answer.Body.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return err
	}
	if answer.StatusCode/100 != 2 {
		return refusal(answer.Status, b)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// refusal makes one error of the list that a refused call answers.
func refusal(status string, body []byte) error {
	var chain []string
	if err := json.Unmarshal(body, &chain); err != nil || len(chain) == 0 {
		return fmt.Errorf("%s: %s", status, strings.TrimSpace(string(body)))
	}
	return fmt.Errorf("%s: %s", status, strings.Join(chain, ": "))
}

// ping asks whether the VMM answers at all.
func (a *api) ping(ctx context.Context) error {
	var answer struct{ Version string }
	if err := a.call(ctx, http.MethodGet, "vmm.ping", nil, &answer); err != nil {
		return err
	}
	if answer.Version == "" {
		return fmt.Errorf("cloud-hypervisor vmm.ping: no version")
	}
	return nil
}

// vmInfo is the part of vm.info that is compared.
type vmInfo struct {
	State      string `json:"state"`
	MemorySize int64  `json:"memory_actual_size"`
	Config     struct {
		CPUs struct {
			Boot   int  `json:"boot_vcpus"`
			Max    int  `json:"max_vcpus"`
			Nested bool `json:"nested"`
		} `json:"cpus"`
		Memory struct {
			Size   int64 `json:"size"`
			Shared bool  `json:"shared"`
		} `json:"memory"`
		Payload struct{ Kernel, Initramfs, Cmdline string } `json:"payload"`
		Disks   []struct {
			Path, Serial string
			ReadOnly     bool   `json:"readonly"`
			Type         string `json:"image_type"`
		} `json:"disks"`
		Net []struct {
			MAC string `json:"mac"`
			FDs []int  `json:"fds"`
		} `json:"net"`
		Vsock    *struct{ CID uint32 } `json:"vsock"`
		PVPanic  bool                  `json:"pvpanic"`
		Landlock bool                  `json:"landlock_enable"`
	} `json:"config"`
}

func (a *api) info(ctx context.Context) (vmInfo, error) {
	var i vmInfo
	err := a.call(ctx, http.MethodGet, "vm.info", nil, &i)
	return i, err
}

// powerButton presses the ACPI power button.
func (a *api) powerButton(ctx context.Context) error {
	return a.call(ctx, http.MethodPut, "vm.power-button", nil, nil)
}

// counters are per device, then per counter.
func (a *api) counters(ctx context.Context) (map[string]map[string]uint64, error) {
	var c map[string]map[string]uint64
	err := a.call(ctx, http.MethodGet, "vm.counters", nil, &c)
	return c, err
}
