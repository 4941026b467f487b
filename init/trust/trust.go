// SPDX-License-Identifier: Apache-2.0

// Package trust looks at what vouches for this boot: the firmware's Secure
// Boot state and the TPM's record of it. It changes nothing. A node without
// one of them works; what it then cannot promise is said on the console, in
// words that an operator can act on.
package trust

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Where the kernel shows both.
const (
	EFIVars = "/sys/firmware/efi/efivars"
	TPM     = "/sys/class/tpm/tpm0"
)

const (
	globalGUID = "-8be4df61-93ca-11d2-aa0d-00e098032b8c"
	attributes = 4 // bytes before a variable's data
	digestLen  = 32
	// UKIRegister holds what systemd's stub measured of the UKI.
	UKIRegister = 11
	// WordsRegister holds what it measured of words that were added to the command
	// line from outside (SMBIOS); it stays zero when there were none.
	WordsRegister = 12
)

// Secure Boot as the firmware says.
const (
	On    = "on"
	Off   = "off"
	Setup = "setup mode" // no platform key: anybody may enrol theirs
	None  = "none"       // no UEFI variables
)

// State is what was found.
type State struct {
	SecureBoot string
	TPM        bool
	// PCR11 is the SHA-256 register with the UKI's measurement, in
	// hexadecimal; "" when it holds nothing that could vouch for anything.
	PCR11 string
	// PCR12 is that of words from outside; "" when there were none, or when a
	// Problem says that nobody knows.
	PCR12   string
	Problem string // why a TPM that exists does not count
}

// Look reads both.
func Look(efivars, tpm string) State {
	s := State{SecureBoot: secureBoot(efivars)}
	if _, err := os.Stat(tpm); err != nil {
		return s
	}
	s.TPM = true
	raw, err := register(tpm, UKIRegister)
	switch {
	case err != nil:
		s.Problem = err.Error()
	case all(raw, 0):
		s.Problem = fmt.Sprintf("register %d is zero: the image was not measured", UKIRegister)
	case all(raw, 0xff):
		s.Problem = fmt.Sprintf("register %d is all ones: the TPM does not work", UKIRegister)
	default:
		s.PCR11 = hex.EncodeToString(raw)
	}
	words, err := register(tpm, WordsRegister)
	switch {
	case err != nil:
		s.Problem = cmp.Or(s.Problem, err.Error())
	case all(words, 0xff):
		s.Problem = cmp.Or(s.Problem, fmt.Sprintf("register %d is all ones: the TPM does not work", WordsRegister))
	case !all(words, 0):
		s.PCR12 = hex.EncodeToString(words)
	}
	return s
}

// Words is register 12 for people: "none" where no words came from outside, and
// "unknown" where no register says so.
func (s State) Words() string {
	if s.PCR12 == "" && (!s.TPM || s.Problem != "") {
		return "unknown"
	}
	return cmp.Or(s.PCR12, "none")
}

// register reads one of the SHA-256 bank.
func register(tpm string, n int) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(tpm, fmt.Sprintf("pcr-sha256/%d", n)))
	if err != nil {
		return nil, fmt.Errorf("no SHA-256 registers: %w", err)
	}
	text := strings.ToLower(strings.TrimSpace(string(b)))
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != digestLen {
		return nil, fmt.Errorf("register %d reads %q", n, text)
	}
	return raw, nil
}

func all(b []byte, v byte) bool {
	for _, c := range b {
		if c != v {
			return false
		}
	}
	return true
}

func secureBoot(dir string) string {
	flag := func(name string) int {
		b, err := os.ReadFile(filepath.Join(dir, name+globalGUID))
		if err != nil || len(b) != attributes+1 {
			return -1
		}
		return int(b[attributes])
	}
	switch on, setup := flag("SecureBoot"), flag("SetupMode"); {
	case on == 1:
		return On
	case setup == 1:
		return Setup
	case on == 0:
		return Off
	}
	return None
}

// Told is where init tells the agent, which says it on the ledger.
const Told = "/run/boot-trust"

// Text is a line for each thing: a word and its value. "lacks" may stand there
// several times.
func (s State) Text() string {
	text := "secureBoot " + s.SecureBoot + "\npcr11 " + s.PCR11 + "\n"
	for _, l := range s.Lacks() {
		text += "lacks " + l + "\n"
	}
	return text
}

// Lacks lists what this boot cannot promise, and what to do about it.
func (s State) Lacks() []string {
	var out []string
	switch s.SecureBoot {
	case Setup:
		out = append(out, "firmware is in setup mode: it starts any program; boot a medium that enrols your keys")
	case Off:
		out = append(out, "Secure Boot is off: the firmware starts any program; switch it on in the firmware's menu")
	case None:
		out = append(out, "no UEFI variables: nothing says which programs this firmware starts")
	}
	switch {
	case !s.TPM:
		out = append(out, "no TPM: nobody else can check what this node booted, and nothing can be sealed to it")
	case s.Problem != "":
		out = append(out, "TPM: "+s.Problem)
	}
	return out
}
