// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/zos-node/zos/zimage/erofs"
	"github.com/zos-node/zos/zimage/flat"
)

// maxAccounts bounds /etc/passwd and /etc/group.
const maxAccounts = 1 << 20

// defaults resolves what the OCI configuration says of the process against
// the image's own files, so that nobody has to look into the image again.
func defaults(c ociConfig, t *flat.Tree) (Defaults, error) {
	user, err := resolveUser(c.Config.User, t)
	if err != nil {
		return Defaults{}, err
	}
	d := Defaults{
		Entrypoint: list(c.Config.Entrypoint), Cmd: list(c.Config.Cmd), Env: list(c.Config.Env),
		WorkingDir: c.Config.WorkingDir, User: user, StopSignal: c.Config.StopSignal,
	}
	if d.WorkingDir == "" {
		d.WorkingDir = "/"
	}
	if d.StopSignal == "" {
		d.StopSignal = "SIGTERM"
	}
	return d, nil
}

func list(s []string) []string { return append([]string{}, s...) }

// resolveUser turns USER[:GROUP], each a name or a number, into "uid:gid".
func resolveUser(s string, t *flat.Tree) (string, error) {
	user, group, hasGroup := strings.Cut(s, ":")
	if user == "" {
		user = "0"
	}
	passwd, err := accounts(t, "/etc/passwd")
	if err != nil {
		return "", err
	}
	uid, gid := "", "0"
	if number(user) {
		uid = user
	}
	for _, e := range passwd { // name:x:uid:gid:…
		if len(e) >= 4 && number(e[2]) && number(e[3]) && (e[0] == user || e[2] == uid) {
			uid, gid = e[2], e[3]
			break
		}
	}
	if uid == "" {
		return "", fmt.Errorf("%w: user %q is not in the image's /etc/passwd", ErrSource, user)
	}
	if !hasGroup || group == "" {
		return uid + ":" + gid, nil
	}
	if number(group) {
		return uid + ":" + group, nil
	}
	groups, err := accounts(t, "/etc/group")
	if err != nil {
		return "", err
	}
	for _, e := range groups { // name:x:gid:…
		if len(e) >= 3 && e[0] == group && number(e[2]) {
			return uid + ":" + e[2], nil
		}
	}
	return "", fmt.Errorf("%w: group %q is not in the image's /etc/group", ErrSource, group)
}

// number is a uid or gid in the one usual way to write it.
func number(s string) bool {
	n, err := strconv.ParseUint(s, 10, 32)
	return err == nil && strconv.FormatUint(n, 10) == s
}

// accounts reads a file of colon-separated lines; none is an empty one.
func accounts(t *flat.Tree, path string) ([][]string, error) {
	n := t.Lookup(path)
	if n == nil || n.Mode&erofs.TypeMask != erofs.TypeRegular || n.Size == 0 {
		return nil, nil
	}
	b, err := io.ReadAll(io.NewSectionReader(n.Data, n.Off, min(n.Size, maxAccounts)))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	var out [][]string
	for line := range strings.Lines(string(b)) {
		out = append(out, strings.Split(strings.TrimSpace(line), ":"))
	}
	return out, nil
}
