#!/bin/sh
# Makes the secrets that deploy/compose.yaml needs, in deploy/secrets/, or in the directory given. What is there stays.
#
# The files can be read by any user, because a container's user is not one of this machine; the directory keeps all
# others out. eth_password and keystore/ are yours to put there, with the same modes (chmod 444): they belong to a key
# that exists already.
set -eu
umask 077
directory=${1:-"$(dirname "$0")/secrets"}
mkdir -p "$directory/keystore"
chmod 700 "$directory"
chmod 755 "$directory/keystore"
cd "$directory"

write() { # name, content
  if [ ! -e "$1" ]; then
    printf '%s\n' "$2" > ".$1.new"
    chmod 444 ".$1.new"
    mv ".$1.new" "$1"
    echo "made $1"
  fi
}
random() { openssl rand -hex 32; }
url() { printf 'postgresql://clearinghouse_%s:%s@postgres:5432/clearinghouse' "$1" "$(cat "db_$1_password")"; }

for name in api_key_pepper admin_token metrics_token db_superuser_password db_owner_password db_service_password \
  db_manager_password db_worker_password; do
  write "$name" "$(random)"
done
write database_url "$(url service)"
write admin_database_url "$(url manager)"
write worker_database_url "$(url worker)"
write owner_database_url "$(url owner)"
