// SPDX-License-Identifier: Apache-2.0

package image

import (
	"fmt"
	"strings"
)

const ipxeName = "boot.ipxe"

// IPXE is the script with which iPXE starts the UKI that lies beside it.
//
// iPXE hands a program's name and arguments over as its load options, which
// systemd's stub takes for the command line while Secure Boot is off. So the
// program is given a name that is the first word of the image's own command
// line, and the rest as arguments: the kernel sees what it sees on any other
// medium. With Secure Boot on, the stub does not listen.
func IPXE(cmdline string) []byte {
	words := strings.Fields(cmdline)
	return fmt.Appendf(nil, `#!ipxe
# SPDX-License-Identifier: Apache-2.0
# Starts the node image beside this script. No setting stands here: the words
# after the name are those that the image has inside.
echo zos: fetching node.efi
kernel --name %s node.efi %s || goto failed
boot || goto failed
:failed
echo zos: node.efi was not started; expected it beside boot.ipxe, signed by a key that this firmware has
sleep 30
reboot
`, words[0], strings.Join(words[1:], " "))
}
