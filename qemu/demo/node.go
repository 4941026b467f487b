// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/zos-node/zos/boards"
)

// portTries is how often a start is tried again when its port was taken.
const portTries = 2

// gatewayPort is the port on the node that examples/shop/app.yaml names.
const gatewayPort = 8000

// Limits of waiting: emulated machines are slow, hung ones are slower.
const (
	bootLimit = 6 * time.Minute
	runLimit  = 10 * time.Minute
	pageLimit = 30 * time.Second
	// nodeGoodbye is more than what zos node run gives the node's guests.
	nodeGoodbye = 75 * time.Second
	// orphanGoodbye is for a node without a ledger, which would wait for one.
	orphanGoodbye = 3 * time.Second
)

// historyInfo is the part of `zos history --json` that the demo reads.
type historyInfo struct {
	Status string `json:"status"`
	Items  []struct {
		Index      int64  `json:"index"`
		TimeMs     int64  `json:"timeMs"`
		Kind       string `json:"kind"`
		Phase      string `json:"phase"`
		Result     string `json:"result"`
		DurationMs int64  `json:"durationMs"`
		Bytes      int64  `json:"bytes"`
		Detail     string `json:"detail"`
	} `json:"items"`
}

var (
	following       = regexp.MustCompile(`msg="following the ledger"`)
	acceleratorSaid = regexp.MustCompile(`^accelerator: (.*)`) // first line of zos node run
)

// boot starts the node image, from its disk, and waits until its agent
// follows the ledger.
func (c *chain) boot(ctx context.Context) ([]string, error) {
	c.consolePath = filepath.Join(c.run1, "console.log")
	defer c.steps.waits("the node to follow the ledger", func() string { return tailFile(c.consolePath, 1) })()
	// A node that waits for a server that has ended waits for ever.
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	go func() {
		select {
		case <-c.ledger.done:
		case <-c.mirror.done:
		case <-ctx.Done():
			return
		}
		end(errOrphan)
	}()
	for tries := 0; ; tries++ {
		var err error
		if c.gatewayPort, err = freePort(gatewayPort); err != nil {
			return nil, err
		}
		c.node, _, err = startServer(ctx, c.consolePath, sign{following, "the node says on its console that it follows the ledger"}, bootLimit, c.zos, "node", "run",
			filepath.Join(c.path("images", boards.NameOf(c.board)), "node.img"), "--forward", fmt.Sprintf("%d:%d", c.gatewayPort, gatewayPort))
		if err == nil {
			break
		}
		if errors.Is(context.Cause(ctx), errOrphan) {
			return nil, errOrphan
		}
		if tries == portTries || !portTaken(err) { // somebody took the port since it was probed
			return nil, err
		}
	}
	c.node.goodbye = nodeGoodbye
	c.accel = firstMatch(c.consolePath, acceleratorSaid)
	return []string{"accelerator: " + c.accel, "console: " + c.consolePath}, nil
}

// errOrphan says why a node cannot go on; which server it is, because finds.
var errOrphan = errors.New("a server that the node needs has ended")

// wait follows the ledger until the deployment runs, and shows its phases.
func (c *chain) wait(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	shown, behind := int64(-1), "nothing yet"
	began := time.Now()
	said := began
	for {
		if err := c.loadHistory(ctx); err != nil && ctx.Err() == nil {
			return nil, err
		}
		for _, it := range c.history.Items {
			if it.Index <= shown || (it.Kind != "record" && it.Kind != "claim" && it.Kind != "incident") {
				continue
			}
			shown, behind, said = it.Index, strings.TrimSpace(it.Kind+" "+it.Phase), time.Now()
			fmt.Fprintf(c.steps.out, "        %-6d %-9s %-18s %-7s %6d ms\n", it.Index, it.Kind, it.Phase, it.Result, it.DurationMs)
		}
		if time.Since(said) >= waitEvery {
			said = time.Now()
			fmt.Fprintf(c.steps.out, "        waiting for what comes behind %s, %.0f s so far; the console: %s\n", behind, time.Since(began).Seconds(), strings.TrimSpace(tailFile(c.consolePath, 1)))
		}
		switch c.history.Status {
		case "running":
			return nil, nil
		case "failed", "stopped":
			return nil, &problem{what: "the deployment is " + c.history.Status, expected: "running",
				todo: "read the history: zos history shop --ledger " + c.ledgerURL + " --root " + c.root, err: errors.New(tailFile(c.consolePath, 30))}
		}
		select {
		case <-time.After(time.Second):
		case <-c.mirror.done:
			return nil, errOrphan
		case <-c.ledger.done:
			return nil, errOrphan
		case <-c.node.done:
			return nil, &problem{what: "the node ended", expected: "a node that runs the deployment", todo: "read " + c.consolePath, err: errors.New(tailFile(c.consolePath, 30))}
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, ctx.Err()
			}
			return nil, &problem{what: fmt.Sprintf("the deployment is not running after %s, but %s, behind %s", runLimit, c.history.Status, behind),
				expected: "running", todo: "read " + c.consolePath + "; on a machine that does much else, try again when it does less", err: errors.New(tailFile(c.consolePath, 30))}
		}
	}
}

func (c *chain) loadHistory(ctx context.Context) (err error) {
	c.history, err = c.historyOf(ctx, "shop")
	return err
}

// fetch asks for the page as anybody outside would. nginx passes the request
// to app, whose greeting has to come back.
func (c *chain) fetch(ctx context.Context) ([]string, error) {
	url := fmt.Sprintf("http://127.0.0.1:%d/", c.gatewayPort)
	ctx, cancel := context.WithTimeout(ctx, pageLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	fail := &problem{what: "fetch " + url, expected: "status 200, from nginx, with app's greeting", todo: "read " + c.consolePath}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		fail.err = err
		return nil, fail
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		fail.err = err
		return nil, fail
	}
	server := resp.Header.Get("Server")
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(server, "nginx") || !strings.Contains(string(body), `"host":"app"`) {
		fail.err = fmt.Errorf("status %s, server %q, body %q", resp.Status, server, body)
		return nil, fail
	}
	return []string{"GET " + url + " -> " + resp.Status + ", server " + server, strings.TrimSpace(string(body))}, nil
}

func (c *chain) showHistory(ctx context.Context) ([]string, error) {
	out, err := c.command(ctx, c.zos, "history", "shop", "--ledger", c.ledgerURL, "--root", c.root)
	return []string{out}, err
}

// audit replays the log from its folder, without the ledger's server.
func (c *chain) audit(ctx context.Context) ([]string, error) {
	out, err := c.command(ctx, c.zos, "audit", "--ledger", filepath.Join(c.run1, "ledger"), "--root", c.root, "shop")
	if err != nil {
		return []string{out}, err
	}
	// A deployment that was reached once, and fits, may be ending all the same.
	h, err := c.historyOf(ctx, "shop")
	if err != nil {
		return []string{out}, err
	}
	for _, it := range h.Items {
		if it.Kind == "incident" {
			return []string{out}, &problem{what: "the deployment had an incident", expected: "it runs undisturbed", todo: "read its detail: zos history shop, and " + c.consolePath,
				err: fmt.Errorf("entry %d", it.Index)}
		}
	}
	if h.Status != "running" {
		return []string{out}, &problem{what: "the deployment runs no more", expected: "running", todo: "read " + c.consolePath, err: errors.New(h.Status)}
	}
	return []string{out}, nil
}
