// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"fmt"
	"os"
	"regexp"
	"slices"
	"time"
)

// lockGone matches what is said when a lock could not be kept to.
var lockGone = regexp.MustCompile(`LOCK\b.* NO LONGER HOLDS`)

// summary says what was done, how long it took, and with what.
func (c *chain) summary() {
	w := c.steps.out
	fmt.Fprintf(w, "\nSUMMARY\n")
	var total time.Duration
	for _, s := range c.steps.done {
		total += s.Took
		fmt.Fprintf(w, "  %-48s %7.1f s\n", s.Name, s.Took.Seconds())
	}
	fmt.Fprintf(w, "  %-48s %7.1f s\n", "all of these (setup and builds came before)", total.Seconds())
	if len(c.history.Items) > 0 {
		fmt.Fprintf(w, "\n  phases on the node\n")
		for _, it := range c.history.Items {
			if it.Kind == "record" {
				fmt.Fprintf(w, "    %-20s %8d ms  %12d bytes  %s\n", it.Phase, it.DurationMs, it.Bytes, it.Result)
			}
		}
	}
	fmt.Fprintln(w)
	for _, f := range []string{"node.uki", "node.img"} {
		fmt.Fprintf(w, "  %-10s %8.1f MB\n", f, float64(c.build.Files[f].Size)/1e6)
	}
	h := c.build.Hypervisor
	fmt.Fprintf(w, "  hypervisor %s %s (%s)\n", h.Name, h.Version, h.Source)
	if c.accel != "" {
		fmt.Fprintf(w, "  accelerator %s\n", c.accel)
	}
	for _, line := range c.warnings {
		fmt.Fprintf(w, "  %s\n", line)
	}
	if slices.ContainsFunc(c.warnings, lockGone.MatchString) {
		fmt.Fprint(w, `
  ********************************************************************
  *  A LOCK DID NOT HOLD: versions that it names are gone from the   *
  *  archive, and the image has newer ones. To pin those:            *
  *  zos node lock (the node), mkimages -update (the example's web)  *
  ********************************************************************
`)
	}
	if h.Name != "cloud-hypervisor" {
		fmt.Fprint(w, `
  ********************************************************************
  *  NOT CLOUD HYPERVISOR: neither downloaded nor found, or "none".  *
  *  The image carries Debian's QEMU as its second driver.           *
  *  To get the product's own: CLOUD_HYPERVISOR=/path make run       *
  ********************************************************************
`)
	}
}

func (c *chain) lookAround() {
	fmt.Fprintf(c.steps.out, `
Everything is still running. Look around (Ctrl-C ends it all):
  curl http://127.0.0.1:%d/
  %[2]s status  --ledger %[3]s --root %[4]s
  %[2]s history shop --ledger %[3]s --root %[4]s
  tail -f %[5]s
`, c.gatewayPort, c.zos, c.ledgerURL, c.root, c.consolePath)
}

// firstMatch returns the first group of the first line that matches.
func firstMatch(path string, re *regexp.Regexp) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for scan := bufio.NewScanner(f); scan.Scan(); {
		if m := re.FindStringSubmatch(scan.Text()); m != nil {
			return m[1]
		}
	}
	return ""
}
