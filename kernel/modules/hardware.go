// SPDX-License-Identifier: Apache-2.0

package modules

// Hardware that only some boards have. Everything is optional: each of
// Debian's kernels has the part that its machines can meet, and a device finds
// its driver by modalias. Only what shows up on its bus after drivers were
// looked for is loaded by name.

// nic: network cards of servers and clouds.
func nic() Set {
	return Set{"nic", []Want{
		{Name: "e1000", Optional: true, Why: "Intel network cards"},
		{Name: "e1000e", Optional: true, Why: "Intel network cards"},
		{Name: "igb", Optional: true, Why: "Intel network cards"},
		{Name: "igbvf", Optional: true, Why: "Intel network cards"},
		{Name: "igc", Optional: true, Why: "Intel network cards"},
		{Name: "ixgbe", Optional: true, Why: "Intel network cards"},
		{Name: "ixgbevf", Optional: true, Why: "Intel network cards"},
		{Name: "i40e", Optional: true, Why: "Intel network cards"},
		{Name: "iavf", Optional: true, Why: "Intel network cards"},
		{Name: "ice", Optional: true, Why: "Intel network cards"},
		{Name: "tg3", Optional: true, Why: "Broadcom network cards"},
		{Name: "bnx2", Optional: true, Why: "Broadcom network cards"},
		{Name: "bnx2x", Optional: true, Why: "Broadcom network cards"},
		{Name: "bnxt_en", Optional: true, Why: "Broadcom network cards"},
		{Name: "r8169", Optional: true, Why: "Realtek network cards"},
		{Name: "mlx4_en", Optional: true, Why: "Mellanox network cards"},
		{Name: "mlx5_core", Optional: true, Why: "Mellanox network cards"},
		{Name: "qede", Optional: true, Why: "QLogic network cards"},
		{Name: "qlcnic", Optional: true, Why: "QLogic network cards"},
		{Name: "netxen_nic", Optional: true, Why: "QLogic network cards"},
		{Name: "cxgb4", Optional: true, Why: "Chelsio network cards"},
		{Name: "enic", Optional: true, Why: "Cisco network cards"},
		{Name: "be2net", Optional: true, Why: "Emulex network cards"},
		{Name: "sfc", Optional: true, Why: "Solarflare network cards"},
		{Name: "atlantic", Optional: true, Why: "Aquantia network cards"},
		{Name: "ionic", Optional: true, Why: "Pensando network cards"},
		{Name: "ena", Optional: true, Why: "Amazon's network cards"},
		{Name: "gve", Optional: true, Why: "Google's network cards"},
		{Name: "mana", Optional: true, Why: "Microsoft's network cards"},
	}}
}

// raid: disk controllers of servers.
func raid() Set {
	return Set{"raid", []Want{
		{Name: "megaraid_sas", Optional: true, Why: "Broadcom and Dell PERC controllers"},
		{Name: "mpt3sas", Optional: true, Why: "Broadcom SAS controllers"},
		{Name: "mpi3mr", Optional: true, Why: "Broadcom SAS4 controllers"},
		{Name: "smartpqi", Optional: true, Why: "HPE Smart Array"},
		{Name: "hpsa", Optional: true, Why: "HPE Smart Array"},
		{Name: "aacraid", Optional: true, Why: "Adaptec controllers"},
		{Name: "arcmsr", Optional: true, Why: "Areca controllers"},
		{Name: "mptsas", Optional: true, Why: "LSI Fusion controllers"},
		{Name: "mptspi", Optional: true, Why: "LSI Fusion controllers"},
		{Name: "vmd", Optional: true, Why: "NVMe disks behind Intel VMD"},
		{Name: "isci", Optional: true, Why: "Intel chipset SAS"},
		{Name: "ses", Optional: true, Why: "disk slots"},
		{Name: "enclosure", Optional: true, Why: "disk slots"},
	}}
}

// usb: USB: boot media and keyboards.
func usb() Set {
	return Set{"usb", []Want{
		{Name: "xhci_pci", Load: true, Optional: true, Why: "USB controllers"},
		{Name: "ehci_pci", Load: true, Optional: true, Why: "USB controllers"},
		{Name: "ohci_pci", Load: true, Optional: true, Why: "USB controllers"},
		{Name: "uhci_hcd", Load: true, Optional: true, Why: "USB controllers"},
		{Name: "usb_storage", Load: true, Optional: true, Why: "USB sticks"},
		{Name: "uas", Load: true, Optional: true, Why: "USB sticks"},
		{Name: "usbhid", Load: true, Optional: true, Why: "a USB keyboard"},
		{Name: "hid_generic", Load: true, Optional: true, Why: "a USB keyboard"},
		{Name: "cdc_ether", Optional: true, Why: "USB network adapters"},
		{Name: "ax88179_178a", Optional: true, Why: "USB network adapters"},
		{Name: "r8152", Optional: true, Why: "USB network adapters"},
	}}
}

// hyperv: Hyper-V and Azure.
func hyperv() Set {
	return Set{"hyperv", []Want{
		{Name: "hv_vmbus", Optional: true, Why: "the bus of Hyper-V"},
		{Name: "hv_storvsc", Optional: true, Why: "disks of Hyper-V"},
		{Name: "hv_netvsc", Optional: true, Why: "the uplink on Hyper-V"},
		{Name: "hv_utils", Optional: true, Why: "time and power of Hyper-V"},
		{Name: "hv_balloon", Optional: true, Why: "memory given back to Hyper-V"},
		{Name: "hyperv_keyboard", Optional: true, Why: "a keyboard on Hyper-V"},
		{Name: "pci_hyperv", Optional: true, Why: "PCI devices passed through by Hyper-V"},
	}}
}

// vmware: VMware.
func vmware() Set {
	return Set{"vmware", []Want{
		{Name: "vmxnet3", Optional: true, Why: "the uplink on VMware"},
		{Name: "vmw_pvscsi", Optional: true, Why: "disks of VMware"},
		{Name: "mptspi", Optional: true, Why: "older disks of VMware"},
		{Name: "BusLogic", Optional: true, Why: "older disks of VMware"},
		{Name: "vmw_vmci", Optional: true, Why: "VMware's channel to the host"},
		{Name: "vmw_balloon", Optional: true, Why: "memory given back to VMware"},
	}}
}

// xen: Xen.
func xen() Set {
	return Set{"xen", []Want{
		{Name: "xen_blkfront", Load: true, Optional: true, Why: "disks of Xen"},
		{Name: "xen_netfront", Load: true, Optional: true, Why: "the uplink on Xen"},
		{Name: "xen_scsifront", Optional: true, Why: "SCSI disks of Xen"},
		{Name: "xen_kbdfront", Optional: true, Why: "a keyboard on Xen"},
	}}
}
