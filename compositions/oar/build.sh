#!/bin/bash
# Runs in the image, after packages and files.
set -euo pipefail

# One account, the same number everywhere; the homes come at boot, on the shared volume.
useradd --uid 2001 --user-group --no-create-home --home-dir /users/user1 --shell /bin/bash user1
useradd --uid 2002 --user-group --no-create-home --home-dir /users/user2 --shell /bin/bash user2

# Keys that all images of this recipe would share: every deployment makes its own.
rm -f /etc/ssh/ssh_host_*_key* /etc/oar/oar_ssh_host_*_key* /var/lib/oar/.ssh/{id_*,authorized_keys} \
    /etc/ssl/private/ssl-cert-snakeoil.key
sed -i 's|^HostKey .*|HostKey /etc/oar/oar_ssh_host_key|' /etc/oar/sshd_config

# The database: from the cluster's network, with a password.
echo "host oar oar,oar_ro samenet scram-sha-256" >>/etc/postgresql/15/main/pg_hba.conf

# The REST API.
sed -i -E 's/^(export APACHE_RUN_(USER|GROUP))=.*/\1=oar/' /etc/apache2/envvars
echo >/etc/apache2/ports.conf
a2enmod -q cgid headers
a2dissite -q 000-default
a2enconf -q cluster-oar-api

# The nodes of a test cluster share one host's cores: a rank that waits must not spin.
echo "mpi_yield_when_idle = 1" >>/etc/openmpi/openmpi-mca-params.conf
mpicc -O2 -Wall -Wextra -Werror -o /usr/local/bin/pi /usr/local/src/pi.c -lm

systemctl enable oar-setup.service oar-server.service oar-node.service
