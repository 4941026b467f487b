// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Options say what to boot.
type Options struct {
	Accel     Accel
	Arch      string // Debian's name; "" is amd64, arm64 boots through UEFI only
	MemoryMiB int    // 2048 when 0
	CPUs      int    // the accelerator's when 0

	// Disk is a raw image, booted through OVMF; or Kernel, Initrd and Cmdline
	// are booted directly.
	Disk                    string
	Kernel, Initrd, Cmdline string

	// UEFI, when set, says how the firmware finds what it boots; Disk is then
	// attached as UEFI.Bus says.
	UEFI *UEFI

	// Net are QEMU's options of the network, in place of one card on its user
	// network.
	Net []string

	Screen   bool     // a VGA card; without it there is no screen at all
	NoSerial bool     // no serial port: the console stays empty
	Restart  bool     // a reset starts the machine again; without it, a reset ends it
	Args     []string // of QEMU, behind all others

	// Patience is what Boot has for an emulator that hangs before its kernel's
	// first word; 2 minutes when 0.
	Patience time.Duration

	Forward map[int]int // port on 127.0.0.1 to port of the machine
	Faults  bool        // give the machine the port "zos.fault" (test images only)
	SMBIOS  []string    // OEM strings (type 11)
	Log     string      // file for the console, without escape sequences; "" keeps it in memory only
	Console io.Writer   // a copy of the console, or nil
}

// Machine is one running QEMU.
type Machine struct {
	Console *Console
	Started time.Time
	Retries int // how many emulator faults came before this boot

	cmd    *exec.Cmd
	keys   io.Writer // what is typed at the serial port
	accel  string    // name of the accelerator
	folder *folder
	dir    string // the folder's path
	qmp    string // socket path
	port   string // fault channel socket path, or ""
	done   chan struct{}
	err    error // of Wait, after done
	once   sync.Once
}

// Binary is the emulator's name on Debian.
const Binary = "qemu-system-x86_64"

// firmware lists OVMF as Debian 12 and 13 ship it: code, then variables.
var firmware = [][2]string{
	{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
	{"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},
}

// ErrPortTaken says that a port of Options.Forward cannot be listened on.
var ErrPortTaken = errors.New("the port cannot be listened on")

// checkPorts finds what QEMU would only say on its way out.
func checkPorts(forward map[int]int) error {
	for _, host := range sortedPorts(forward) {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", host))
		if err != nil {
			return fmt.Errorf("forward 127.0.0.1:%d to the machine's port %d: %w: %w", host, forward[host], ErrPortTaken, err)
		}
		if err := l.Close(); err != nil {
			return fmt.Errorf("probe port %d: %w", host, err)
		}
	}
	return nil
}

// Start boots a machine. Close must be called. A port to forward that is taken
// is ErrPortTaken.
func Start(o Options) (*Machine, error) {
	if err := checkPorts(o.Forward); err != nil {
		return nil, err
	}
	dir, err := newFolder(os.TempDir(), time.Now())
	if err != nil {
		return nil, err
	}
	m := &Machine{Console: newConsole(), accel: o.Accel.Name, folder: dir, dir: dir.path, qmp: filepath.Join(dir.path, "qmp"), done: make(chan struct{})}
	args, err := m.args(o)
	if err != nil {
		return nil, errors.Join(err, dir.remove())
	}
	if err := m.start(o, args); err != nil {
		return nil, errors.Join(err, dir.remove())
	}
	return m, nil
}

func (m *Machine) args(o Options) ([]string, error) {
	args, err := m.parts(o)
	return append(args, o.Args...), err
}

func (m *Machine) parts(o Options) ([]string, error) {
	mem, cpus := o.MemoryMiB, o.CPUs
	if mem == 0 {
		mem = 2048
	}
	if cpus == 0 {
		cpus = max(1, o.Accel.CPUs)
	}
	args := append(slices.Clone(o.Accel.Args), "-smp", strconv.Itoa(cpus), "-m", strconv.Itoa(mem),
		"-nodefaults", "-no-user-config", "-display", "none",
		"-qmp", "unix:"+quoted(m.qmp)+",server=on,wait=off", "-qmp", "unix:"+quoted(m.events())+",server=on,wait=off", "-device", "virtio-rng-pci",
		"-device", "i6300esb", "-action", "watchdog=reset")
	if !o.Restart {
		args = append(args, "-no-reboot")
	}
	if o.NoSerial {
		args = append(args, "-serial", "none")
	} else {
		args = append(args, "-serial", "stdio")
	}
	if o.Screen {
		args = append(args, "-device", "VGA")
	}
	net := "user,id=n0"
	for _, host := range sortedPorts(o.Forward) {
		net += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-:%d", host, o.Forward[host])
	}
	nic := "virtio-net-pci,netdev=n0,romfile="
	if o.UEFI != nil {
		net, nic = o.UEFI.network(net)
	}
	if o.Net != nil {
		args = append(args, o.Net...)
	} else {
		args = append(args, "-netdev", net, "-device", nic)
	}
	for _, s := range o.SMBIOS {
		f := filepath.Join(m.dir, fmt.Sprintf("smbios%d", len(args)))
		if err := os.WriteFile(f, []byte(s), 0o600); err != nil {
			return nil, fmt.Errorf("SMBIOS string: %w", err)
		}
		args = append(args, "-smbios", "type=11,path="+quoted(f))
	}
	if o.Faults {
		m.port = filepath.Join(m.dir, "fault")
		args = append(args, "-device", "virtio-serial-pci", "-chardev", "socket,id=fault,server=on,wait=off,path="+quoted(m.port),
			"-device", "virtserialport,chardev=fault,name=zos.fault")
	}
	if o.Kernel != "" {
		return append(args, "-kernel", o.Kernel, "-initrd", o.Initrd, "-append", o.Cmdline), nil
	}
	if o.UEFI != nil {
		more, err := o.UEFI.args(m.dir, o.Disk, o.Arch)
		return append(args, more...), err
	}
	for _, pair := range firmware {
		if _, err := os.Stat(pair[0]); err != nil {
			continue
		}
		vars, err := os.ReadFile(pair[1])
		if err != nil {
			return nil, fmt.Errorf("OVMF variables: %w", err)
		}
		own := filepath.Join(m.dir, "vars.fd")
		if err := os.WriteFile(own, vars, 0o600); err != nil {
			return nil, fmt.Errorf("OVMF variables: %w", err)
		}
		return append(args,
			"-drive", "if=pflash,format=raw,unit=0,readonly=on,file="+quoted(pair[0]),
			"-drive", "if=pflash,format=raw,unit=1,file="+quoted(own),
			"-drive", "if=none,id=boot,format=raw,snapshot=on,file="+quoted(o.Disk),
			"-device", "virtio-blk-pci,drive=boot,bootindex=0"), nil
	}
	return nil, errors.New("no OVMF firmware under /usr/share/OVMF: install Debian's package ovmf")
}

// quoted lets a path stand in an option of QEMU, which ends values at commas.
func quoted(path string) string { return strings.ReplaceAll(path, ",", ",,") }

func sortedPorts(m map[int]int) []int {
	var ports []int
	for p := range m {
		ports = append(ports, p)
	}
	slices.Sort(ports)
	return ports
}

func (m *Machine) start(o Options, args []string) error {
	var log io.Writer = io.Discard
	var file *os.File
	kept := &plainWriter{} // people look at it in a terminal
	if o.Log != "" {
		f, err := os.Create(o.Log)
		if err != nil {
			return fmt.Errorf("console log: %w", err)
		}
		file, kept.w = f, f
		log = kept
	}
	if o.Console != nil {
		log = io.MultiWriter(log, o.Console)
	}
	m.cmd = exec.Command(Emulator(o.Arch), args...)
	// The machine gets its own group: a Ctrl-C at the terminal is ours to
	// handle, and it dies with us whatever happens.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	// What QEMU lays aside for snapshot=on is removed with the rest, also when
	// QEMU is ended before it has unlinked it.
	m.cmd.Env = append(os.Environ(), "TMPDIR="+m.dir)
	r, w := io.Pipe()
	m.cmd.Stdout, m.cmd.Stderr = w, w
	keys, err := m.cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("serial port: %w", err)
	}
	m.keys = keys
	m.Started = time.Now()
	if err := m.cmd.Start(); err != nil {
		if file != nil {
			file.Close()
		}
		return fmt.Errorf("start %s: %w", Emulator(o.Arch), err)
	}
	go func() {
		m.Console.copyFrom(r, log)
		if file != nil {
			kept.flush()
			file.Close()
		}
	}()
	told := make(chan struct{})
	go func() {
		defer close(told)
		m.tellEvents(w)
	}()
	go func() {
		m.err = m.cmd.Wait()
		close(m.done)
		<-told
		if m.err != nil {
			fmt.Fprintf(w, "\nrig: QEMU ended: %v\n", m.err)
		}
		w.Close()
	}()
	return nil
}

// PID of the emulator.
func (m *Machine) PID() int { return m.cmd.Process.Pid }

// Done is closed when the machine is off.
func (m *Machine) Done() <-chan struct{} { return m.done }

// Wait waits for the machine to be off; its error is QEMU's own.
func (m *Machine) Wait(ctx context.Context) error {
	select {
	case <-m.done:
		return m.err
	case <-ctx.Done():
		return fmt.Errorf("wait for power-off: %w\n%s", ctx.Err(), m.Console.Tail(20))
	}
}

// Type sends a line to the machine's serial port, as a terminal would.
func (m *Machine) Type(line string) error {
	if _, err := io.WriteString(m.keys, line+"\r"); err != nil {
		return fmt.Errorf("type at the serial port: %w", err)
	}
	return nil
}

// PowerButton presses the ACPI power button.
func (m *Machine) PowerButton(ctx context.Context) error {
	return m.Monitor(ctx, "system_powerdown")
}

// Close ends the machine and removes what the rig made. It may be called
// again.
func (m *Machine) Close() error {
	var err error
	m.once.Do(func() {
		if kerr := m.cmd.Process.Kill(); kerr != nil && !errors.Is(kerr, os.ErrProcessDone) {
			err = fmt.Errorf("end QEMU: %w", kerr)
		}
		<-m.done
		err = errors.Join(err, m.folder.remove())
	})
	return err
}

// emulatorFault matches an outer kernel that died of the emulator: under
// multi-threaded TCG the breakpoint that jump labels put over an instruction
// while they patch it is still met when its handler knows nothing of it any
// more, about twice in 45 boots with QEMU 7.2. The kernel itself has to say so,
// at the start of a line: guests' words come through the agent. A panic alone
// is no sign of it, as any oops of the node's kernel ends in one.
//
// The second is a machine that got so little time that the kernel, which counts
// ticks of the timer while it starts, counted none.
var emulatorFault = regexp.MustCompile(`(?m)^(?:\[ *\d+\.\d+\](?:\[ *[A-Z]\d+\])? )?(?:Oops: int3\b|Kernel panic - not syncing: IO-APIC \+ timer doesn't work)`)

// EmulatorFault says whether the outer kernel died in the way that the
// emulator is known for; such a boot may be tried again once.
func (m *Machine) EmulatorFault() bool {
	return slices.ContainsFunc(m.Console.Lines(0), func(l Line) bool { return IsEmulatorFault(m.accel, l.Text) })
}

// IsEmulatorFault says the same of text from the console of a machine that ran
// with the named accelerator. Only emulated processors have the race.
func IsEmulatorFault(accel, console string) bool {
	return accel == "tcg" && emulatorFault.MatchString(console)
}

// dial connects to one of the machine's sockets; QEMU makes them a moment
// after it starts.
func (m *Machine) dial(ctx context.Context, path string) (net.Conn, error) {
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err == nil {
			return conn, nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-m.done:
			return nil, ErrConsoleEnded
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to QEMU: %w", err)
		}
	}
}

// guestFault matches a guest's kernel that died of the emulator as well, one
// level down and before it had started anything: a return from an interrupt
// that faults while instructions are patched. The agent passes on what the
// guest's console said last.
var guestFault = regexp.MustCompile(`(?m)^time=\S+ level=INFO msg="last words" .*from=console line="?\[ *0\.\d+\] RIP: 0010:text_poke_early\+`)

// GuestFault says whether a guest's kernel died so.
func (m *Machine) GuestFault() bool {
	return m.accel == "tcg" && slices.ContainsFunc(m.Console.Lines(0), func(l Line) bool { return guestFault.MatchString(l.Text) })
}
