/* libvirt.h - certificates for the connections that libvirt and QEMU make themselves: between hosts' libvirt daemons
 * (qemu+tls://) and for guests' memory (VIR_MIGRATE_TLS).
 *
 * libvirt lets in whoever has a certificate of its CA, with every right that there is. So this is a CA of its own, in
 * DIR/libvirt (a directory as ca.h has them, made when it is first needed): an operator's certificate of LMO's CA opens no
 * hypervisor. What a host needs stands in DIR/issued/libvirt-NAME under the names that libvirt and QEMU look for below
 * /etc/pki:
 *
 *   CA/cacert.pem  CA/cacrl.pem  libvirt/{server,client}cert.pem  libvirt/private/{server,client}key.pem
 *   qemu/ca-cert.pem  qemu/ca-crl.pem  qemu/{server,client}-{cert,key}.pem */
#ifndef LMO_PKI_LIBVIRT_H
#define LMO_PKI_LIBVIRT_H

#include "pki/ca.h"

/* `request`: name, addresses (at least one: the other side checks them), lifetime, renew; the rest is ignored. *ret_issued
 * has the certificate in DIR/libvirt; ret_tree is the directory to put below /etc/pki. */
int lmo_pki_libvirt(const char *dir, const struct lmo_pki_request *request, struct lmo_pki_issued *ret_issued,
                    char ret_tree[LMO_PATH_MAX], struct lmo_err *err) LMO_MUST_CHECK;

#endif
