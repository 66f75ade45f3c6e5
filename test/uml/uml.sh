#!/bin/bash
# uml.sh [-m MEGABYTES] [-t SECONDS] COMMAND [ARGUMENT...]
#
# Runs COMMAND as root in User-mode Linux (Debian package user-mode-linux): a kernel with GRE, TUN, veth and eBPF as an ordinary process. It sees
# this machine's files read-only, the project folder (where it starts) among them; /tmp, /run and /dev/shm are its own. Its standard output,
# standard error and exit status are passed on. The status is 125 if the machine ended without one. A processor with AMX needs a C compiler, too.
set -eu

memory=512 seconds=300
while getopts m:t: option; do
  case $option in
    m) memory=$OPTARG ;;
    t) seconds=$OPTARG ;;
    *) exit 2 ;;
  esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { echo 'usage: uml.sh [-m MEGABYTES] [-t SECONDS] COMMAND [ARGUMENT...]' >&2; exit 2; }

project=$(realpath "$(dirname "$0")/../..")
work=$(mktemp -d "${TMPDIR:-/tmp}/inlay-uml.XXXXXX")
machine= watchdog= preload=
tidy() {
  # The machine is a process group of its own.
  [ -z "$machine" ] || kill -KILL -- "-$machine" 2> /dev/null || true
  [ -z "$watchdog" ] || kill "$watchdog" 2> /dev/null || true
  wait 2> /dev/null || true
  rm -rf "$work"
}
trap tidy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# The folder of this run, seen as /run/host in the machine, is how the two sides talk.
mkdir "$work/host"
: > "$work/host/stdout"
: > "$work/host/stderr"
cat > "$work/init" << INIT
#!/bin/bash
export PATH=$(printf %q "$PATH") HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
for folder in /run /tmp /dev/shm; do
  [ -d \$folder ] || mkdir \$folder
  mount -t tmpfs tmpfs \$folder
done
mkdir -p /run/netns /run/host /run/modules/lib
mount -t hostfs -o $(printf %q "$work/host") host /run/host
# The project may lie in a folder that a tmpfs hides now.
mkdir -p $(printf %q "$project") 2> /dev/null
mount -t hostfs -o $(printf %q "$project"),ro project $(printf %q "$project")
cd $(printf %q "$project")
ln -s /usr/lib/uml/modules /run/modules/lib/modules
modprobe -d /run/modules -a ip_gre tun veth bridge vxlan fou sch_ingress cls_bpf 2>> /run/host/stderr
ip link set lo up
$(printf '%q ' "$@") < /dev/null >> /run/host/stdout 2>> /run/host/stderr
echo \$? > /run/host/status
sync
poweroff -f
INIT
chmod +x "$work/init"

# A processor with AMX has more state than this kernel knows of.
if grep -q amx_tile /proc/cpuinfo; then
  cc -O1 -shared -fPIC -o "$work/xstate.so" "$project/test/uml/xstate.c"
  preload=LD_PRELOAD=./xstate.so # A folder with a space in its name could not be named here.
fi

# umid names this machine among those that run at the same time.
cd "$work"
env $preload setsid linux.uml "mem=${memory}M" "umid=$(basename "$work")" "uml_dir=$work" \
  rootfstype=hostfs rootflags=/ ro "init=$work/init" quiet con=null con0=null,fd:1 \
  < /dev/null > "$work/console" 2>&1 &
machine=$!
sleep "$seconds" &
watchdog=$!

# Each tail ends when the machine does, and passes on what was written by then.
tail -s 0.1 --pid=$machine -n +1 -f "$work/host/stderr" >&2 &
streams=$!
tail -s 0.1 --pid=$machine -n +1 -f "$work/host/stdout" &
streams="$streams $!"
wait -n $machine $watchdog || true
kill -KILL -- "-$machine" 2> /dev/null || true
wait $machine 2> /dev/null || true
wait $streams

if [ -s "$work/host/status" ]; then exit "$(cat "$work/host/status")"; fi
echo "uml.sh: the machine ended, or was stopped after $seconds s, before the command did; its console:" >&2
tail -n 20 "$work/console" >&2
exit 125
