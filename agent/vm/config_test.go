// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"strings"
	"testing"
)

func TestValidate(t *testing.T) {
	good := func() Config {
		return Config{ID: "7-web", Dir: "/run/zos/vm/7-web", VCPUs: 1, MemoryMiB: 128, Kernel: "/k", Initramfs: "/i", CID: 3,
			Cmdline: "quiet", Disks: []Disk{{Path: "/store/a.img", Serial: "root", ReadOnly: true}}, NICs: []NIC{{MAC: "52:54:00:00:00:01"}}}
	}
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"id":            func(c *Config) { c.ID = "../x" },
		"dir":           func(c *Config) { c.Dir = "run" },
		"longer than":   func(c *Config) { c.Dir = "/" + strings.Repeat("x", 100) },
		"vcpus":         func(c *Config) { c.VCPUs = 0 },
		"memory":        func(c *Config) { c.MemoryMiB = 0 },
		"reserved":      func(c *Config) { c.CID = 2 },
		"control":       func(c *Config) { c.Cmdline = "a\nb" },
		"disk 0: path":  func(c *Config) { c.Disks[0].Path = "/a,readonly=off" },
		"disk 0: seri":  func(c *Config) { c.Disks[0].Serial = strings.Repeat("s", 21) },
		"not the only":  func(c *Config) { c.Disks = append(c.Disks, c.Disks[0]) },
		"nic 0":         func(c *Config) { c.NICs[0].MAC = "52:54" },
		"kernel: path":  func(c *Config) { c.Kernel = "/a/../b" },
		"initramfs: pa": func(c *Config) { c.Initramfs = "" },
	} {
		c := good()
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}
