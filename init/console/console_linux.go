// SPDX-License-Identifier: Apache-2.0

package console

import "golang.org/x/sys/unix"

// sysNonblock keeps the open itself from waiting for a carrier.
const sysNonblock = unix.O_NONBLOCK | unix.O_NOCTTY
