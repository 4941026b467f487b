// SPDX-License-Identifier: Apache-2.0

// Package secureboot makes an operator's own UEFI Secure Boot keys and signs
// with them.
//
//	PK   platform key: who may change KEK
//	KEK  key exchange key: who may change db
//	db   signature database: whose programs the firmware starts
//
// Each is an RSA-2048 key with a certificate of its own, which is what every
// firmware understands. Programs carry Authenticode signatures (PE
// attribute certificates, Microsoft's specification of 2008); changes of the
// three variables are EFI_VARIABLE_AUTHENTICATION_2 (UEFI specification,
// 8.2.2). Both are CMS SignedData (RFC 5652) without a time and with RSA PKCS
// #1 v1.5, so that the same key and bytes give the same signature.
package secureboot
