// SPDX-License-Identifier: Apache-2.0

package modules

// Want is one module of a set.
type Want struct {
	Name     string
	Optional bool   // a kernel without it is fine: its hardware is not for that kernel
	Load     bool   // loaded at boot, before the agent starts
	Late     bool   // loaded while the agent starts: needed for guests, not for the way to the ledger
	Plain    bool   // kept uncompressed, with what it needs: every boot on such a machine waits for it
	Wait     bool   // loaded for its device as any other, but only then: nothing on the way to the ledger needs it
	Why      string // what is missing without it
}

// Set is a named table of modules.
type Set struct {
	Name  string
	Wants []Want
}

// Sets are all tables, in the order in which they are loaded. Boards name
// those that they take.
func Sets() []Set {
	return []Set{
		{"virtio", []Want{
			{Name: "virtio_pci", Why: "every virtio device on PCI"},
			{Name: "virtio_blk", Why: "disks of a virtual machine"},
			{Name: "virtio_scsi", Optional: true, Why: "disks of a virtual machine"},
			{Name: "virtio_net", Plain: true, Why: "the uplink of a virtual machine"},
			{Name: "virtio_console", Why: "consoles and the test channel"},
			{Name: "virtio_balloon", Optional: true, Wait: true, Why: "memory given back to the host"},
			{Name: "virtio_rng", Wait: true, Why: "entropy of a virtual machine"},
		}},
		{"kvm", []Want{
			// The processor's modalias chooses one of the two, and it brings kvm.
			// Optional: other architectures have it inside.
			{Name: "kvm_amd", Optional: true, Why: "guests on AMD processors"},
			{Name: "kvm_intel", Optional: true, Why: "guests on Intel processors"},
			{Name: "vhost_net", Optional: true, Why: "faster taps"},
		}},
		{"network", []Want{
			{Name: "tun", Late: true, Why: "the guests' network cards"},
			{Name: "bridge", Late: true, Why: "networks of a deployment"},
			// What the next ones link to asks the kernel for this algorithm by the
			// name "crc32c", which depends on no file: some kernels have it inside.
			{Name: "crc32c_generic", Late: true, Why: "checksums of what nf_tables and ext4 need"},
			{Name: "nf_tables", Late: true, Why: "default deny and gateways"},
			{Name: "nft_ct", Late: true, Why: "firewall by connection state"},
			{Name: "nft_nat", Late: true, Why: "gateways by DNAT"},
			{Name: "nft_chain_nat", Late: true, Why: "gateways by DNAT"},
			{Name: "nft_masq", Late: true, Why: "guests that may reach out"},
			{Name: "nft_meta_bridge", Late: true, Why: "anti-spoofing on bridges"},
			{Name: "nf_conntrack_netlink", Late: true, Why: "connections of an ended network are forgotten"},
			{Name: "8021q", Late: true, Optional: true, Why: "an uplink on a VLAN"},
			{Name: "bonding", Late: true, Optional: true, Why: "an uplink of several links"},
			{Name: "af_packet", Load: true, Optional: true, Why: "DHCP"},
		}},
		{"storage", []Want{
			// The agent loads these where there is a FAT to look at (agent/seed).
			{Name: "vfat", Why: "the boot medium"},
			{Name: "nls_cp437", Why: "the boot medium"},
			{Name: "nls_ascii", Why: "the boot medium"},
			{Name: "nls_utf8", Optional: true, Why: "the boot medium"},
			{Name: "erofs", Why: "Zero-Images"},
			{Name: "fuse", Late: true, Optional: true, Why: "images that are still arriving"},
			{Name: "nvme", Optional: true, Why: "NVMe disks"},
		}},
		{"sata", []Want{
			// Loaded by name: these disks show up while drivers are looked for no more.
			{Name: "sd_mod", Load: true, Optional: true, Why: "SCSI and SATA disks"},
			{Name: "sr_mod", Load: true, Optional: true, Why: "an ISO as the boot medium"},
			{Name: "isofs", Optional: true, Why: "an ISO as the boot medium"},
			{Name: "ahci", Optional: true, Why: "SATA disks"},
		}},
		{"crypt", []Want{
			// The agent loads these where there is a disk for the node's state.
			{Name: "dm_mod", Why: "encrypted volumes"},
			{Name: "dm_crypt", Why: "encrypted volumes"},
			{Name: "xts", Optional: true, Why: "encrypted volumes"},
			{Name: "ecb", Optional: true, Why: "encrypted volumes, where the processor has no AES"},
			{Name: "ext4", Why: "the node's state"},
			{Name: "aesni_intel", Optional: true, Why: "fast encryption"},
			{Name: "sha256_ssse3", Optional: true, Why: "fast digests"},
		}},
		{"platform", []Want{
			// init loads it where there is UEFI (init/mount).
			{Name: "efivarfs", Optional: true, Why: "firmware variables, read only"},
			{Name: "i6300esb", Optional: true, Wait: true, Why: "the emulated watchdog"},
			{Name: "iTCO_wdt", Optional: true, Wait: true, Why: "Intel's watchdog"},
			{Name: "sp5100_tco", Optional: true, Wait: true, Why: "AMD's watchdog"},
			{Name: "button", Late: true, Why: "the power button"},
			{Name: "evdev", Late: true, Why: "the power button"},
			{Name: "atkbd", Optional: true, Wait: true, Why: "a keyboard"},
			{Name: "i8042", Optional: true, Wait: true, Why: "a keyboard"},
			{Name: "rtc_cmos", Optional: true, Why: "the clock"},
			{Name: "qemu_fw_cfg", Optional: true, Wait: true, Why: "a virtual machine's settings"},
			{Name: "tpm_tis", Load: true, Optional: true, Why: "measured boot"},
			{Name: "tpm_crb", Load: true, Optional: true, Why: "measured boot"},
			{Name: "efi_pstore", Late: true, Optional: true, Why: "the last words before a crash"},
			{Name: "ttyprintk", Late: true, Optional: true, Why: "the last words of PID 1, by whole lines"},
			{Name: "ramoops", Optional: true, Why: "the last words before a crash"},
		}},
		nic(), raid(), usb(), hyperv(), vmware(), xen(),
	}
}

// VsockSet is loaded where QEMU runs the guests: its vsock is the
// kernel's. Cloud Hypervisor has one of its own.
func VsockSet() Set {
	return Set{"vsock", []Want{{Name: "vhost_vsock", Late: true, Why: "the guest's report to the agent"}}}
}

// GuestStages is what the guest's PID 1 loads, all of it, in this order. Time
// before the workload runs is what counts: the agent is dialled as soon as that
// is possible, its answer comes while the second stage loads, and what nothing
// before needs loads while the agent compares the report. Then the guest's
// kernel takes no more.
func GuestStages() []Set {
	return []Set{
		{"line", []Want{
			{Name: "virtio_pci", Load: true, Why: "every virtio device"},
			{Name: "vmw_vsock_virtio_transport", Load: true, Why: "the report to the agent"},
		}},
		{"root", []Want{
			// Optional: Debian's arm64 kernels have neither.
			{Name: "pvpanic", Load: true, Optional: true, Why: "a panic that the agent hears of"},
			{Name: "pvpanic_pci", Load: true, Optional: true, Why: "a panic that the agent hears of"},
			{Name: "virtio_blk", Load: true, Why: "the root disk"},
			{Name: "virtio_net", Load: true, Why: "the network"},
			{Name: "sha256", Load: true, Optional: true, Why: "verity"},
			// Without these the kernel hashes with its generic code, several times
			// slower than the processor can. A device takes what is there when it is
			// made: before dm_verity.
			{Name: "sha256_ssse3", Load: true, Optional: true, Why: "verity as fast as the processor hashes"},
			{Name: "sha2_ce", Load: true, Optional: true, Why: "the same on arm64"},
			{Name: "dm_mod", Load: true, Why: "verity"},
			{Name: "dm_bufio", Load: true, Why: "verity"},
			{Name: "reed_solomon", Load: true, Optional: true, Why: "verity"},
			{Name: "dm_verity", Load: true, Why: "every block of the root is checked"},
			{Name: "erofs", Load: true, Why: "the Zero-Image"},
			{Name: "overlay", Load: true, Why: "files of the spec over the image"},
			{Name: "ext4", Load: true, Why: "volumes"},
		}},
		{"late", []Want{
			{Name: "virtio_rng", Load: true, Why: "entropy"},
			{Name: "button", Load: true, Optional: true, Why: "the power button"},
		}},
	}
}

// Named returns the set of a name.
func Named(name string) (Set, bool) {
	for _, s := range Sets() {
		if s.Name == name {
			return s, true
		}
	}
	return Set{}, false
}
