// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vishvananda/netlink"

	"github.com/zos-node/zos/agent/imaged"
	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/agent/vm/proc"
)

const (
	// chrootTask has this program run another in a root folder.
	chrootTask = "in-root"
	// healthyLine is what it says when that answered.
	healthyLine = "bench: healthy"
	// nobody is who programs run as.
	nobody = 65534
	// serverTask has this program be an image server.
	serverTask = "image-server"
)

// inRoot runs a program in a root, as PID 1's only child in its namespaces, and
// asks it, as program.health says, until it answers.
func inRoot(root, health string, argv []string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	for _, dir := range []string{"run", "tmp", "var"} {
		if err := unix.Mount("tmpfs", filepath.Join(root, dir), "tmpfs", 0, "mode=777"); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	for _, dir := range []string{"var/lib/nginx", "var/log/nginx"} {
		at := filepath.Join(root, dir)
		if err := errors.Join(os.MkdirAll(at, 0o755), os.Chmod(at, 0o777)); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(root, "run/nginx.conf"), []byte(nginxConf), 0o644); err != nil {
		return err
	}
	if err := unix.Mount("/dev", filepath.Join(root, "dev"), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount dev: %w", err)
	}
	if err := unix.Mount("proc", filepath.Join(root, "proc"), "proc", 0, ""); err != nil {
		return fmt.Errorf("mount proc: %w", err)
	}
	if err := errors.Join(unix.Chroot(root), unix.Chdir("/")); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// What packages do at their installation was not done: Debian's numpy finds
	// its libraries, and nginx a user to become, only after that.
	const lib = "/usr/lib/x86_64-linux-gnu"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "LD_LIBRARY_PATH=" + lib + "/blas:" + lib + "/lapack"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if health == "" {
		return <-ended
	}
	kind, port, _ := strings.Cut(health, ":")
	ask := map[string]func(addr string) error{"http": askHTTP, "sql": askSQL}[kind]
	for ; ; time.Sleep(2 * time.Millisecond) {
		if ask("127.0.0.1:"+port) == nil {
			fmt.Println(healthyLine)
			break
		}
		select {
		case err := <-ended:
			return fmt.Errorf("it ended: %w", err)
		default:
		}
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	<-end
	return nil
}

// imageServer is an image server as the agent starts it, but for cgroup,
// Landlock and uid, which cost nothing while it runs.
type imageServer struct {
	cmd    *exec.Cmd
	parse  proc.ParseFunc
	name   string // of its event file
	booted chan struct{}
	once   sync.Once
	done   chan struct{}
	events chan vm.Event
}

func startServer(_ context.Context, s proc.Spec) (imaged.Process, error) {
	dev, err := s.Prepare()
	if err != nil {
		return nil, err
	}
	defer dev.Close() // the server has its own
	p := &imageServer{cmd: exec.Command(s.Path, serverTask), parse: s.Parse, name: filepath.Join(s.Dir, proc.EventsFile),
		booted: make(chan struct{}), done: make(chan struct{}), events: make(chan vm.Event, 8)}
	p.cmd.ExtraFiles = append([]*os.File{dev}, s.Files...)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go p.follow()
	return p, nil
}

// follow reads the events until the server ends.
func (p *imageServer) follow() {
	ended := make(chan struct{})
	go func() {
		p.cmd.Wait() // it is killed
		close(ended)
	}()
	for off, over := 0, false; ; {
		b, err := os.ReadFile(p.name)
		if err != nil {
			b = nil // removed with the server
		}
		for i := off; i < len(b); i++ {
			if b[i] != '\n' {
				continue
			}
			parsed, err := p.parse(b[off:i], time.Now())
			off = i + 1
			if err != nil {
				continue // no event
			}
			if parsed.Booted {
				p.once.Do(func() { close(p.booted) })
			}
			if parsed.Event.Kind != "" {
				p.events <- parsed.Event
			}
		}
		if over {
			close(p.done)
			p.events <- vm.Event{Kind: vm.EventExit, Detail: "killed"}
			close(p.events)
			return
		}
		select {
		case <-ended:
			over = true
		case <-time.After(time.Millisecond):
		}
	}
}

func (p *imageServer) Booted(ctx context.Context) error {
	select {
	case <-p.booted:
		return nil
	case <-p.done:
		return errors.New("the image server ended")
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *imageServer) Events() <-chan vm.Event               { return p.events }
func (p *imageServer) Done() <-chan struct{}                 { return p.done }
func (p *imageServer) LogTail() string                       { return "" }
func (p *imageServer) Hardening() (map[string]string, error) { return nil, nil }
func (p *imageServer) Kill(context.Context) error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.done
	return nil
}

// guestReadAhead is what a guest's kernel reads ahead of its root while it starts,
// in KiB (guest/ahead). This kernel would read a loop device 128 KiB and more ahead,
// and all of that would be waited for.
const guestReadAhead = 0

// mountLike mounts an image as a guest would read it. What it gives to undo it is
// to be called whatever happens.
func mountLike(ctx context.Context, path, root string, ahead int) (undo func() error, err error) {
	var undos [][]string
	undo = func() (err error) {
		for _, argv := range slices.Backward(undos) {
			_, uerr := run(context.WithoutCancel(ctx), argv...)
			err = errors.Join(err, uerr)
		}
		return err
	}
	p, err := run(ctx, "losetup", "--find", "--show", "--read-only", path)
	if err != nil {
		return undo, err
	}
	dev := strings.TrimSpace(string(p.out))
	undos = append(undos, []string{"losetup", "--detach", dev})
	if err := os.WriteFile(filepath.Join("/sys/class/block", filepath.Base(dev), "queue/read_ahead_kb"), []byte(fmt.Sprint(ahead)), 0); err != nil {
		return undo, err
	}
	if _, err := run(ctx, "mount", "-t", "erofs", "-o", "ro", dev, root); err != nil {
		return undo, err
	}
	undos = append(undos, []string{"umount", root})
	return undo, nil
}
