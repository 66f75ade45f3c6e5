/**
 * The executable that runtimes find: sh(1), which asks the daemon at its socket. perl(1) takes 2 ms for that,
 * and Debian always has it; curl(1) takes 7. Where neither is, or no daemon attaches containers, it starts
 * Node, which does it by itself in 50.
 */
import { quote } from '../../shell.ts';
import { FIELDS } from './form.ts';

/** Where on this machine the shim finds what it needs. */
export interface ShimPlaces {
  runDir: string;
  /** Node and the plugin's entry. */
  node: string;
  plugin: string;
}

/** Seconds. Where thousands of containers go at once, the last waits long; a daemon that takes longer is stuck. */
const PATIENCE = 120;

/**
 * Prints the answer and, in a line of its own, its status; or the configuration and `none`, if Node is to do it.
 * Without modules, which take longer to load than all else: 1 is AF_UNIX, and SOCK_STREAM.
 */
const PERL = String.raw`
  local $/;
  my ($socket, $config) = (shift, <STDIN> // "");
  my @fields = ((map { [$_, $ENV{$_} // ""] } @ARGV), ["config", $config]);
  my $form = join "&", map { $_->[1] =~ s/([^A-Za-z0-9_.-])/sprintf "%%%02X", ord $1/ger =~ s/^/$_->[0]=/r } @fields;
  alarm ${PATIENCE};
  $SIG{PIPE} = "IGNORE";
  my $s;
  if (!socket($s, 1, 1, 0) || !connect($s, pack("Sa*", 1, $socket))) { print "$config\nnone"; exit; }
  syswrite $s, "POST /cni HTTP/1.0\r\nContent-Length: " . length($form) . "\r\n\r\n$form";
  my ($status, $body) = (<$s> // "") =~ m{^HTTP/1\.\d (\d+).*?\r\n\r\n(.*)}s or exit;
  print $status =~ /^(404|413)$/ ? "$config\nnone" : "$body\n$status";
`;

/** `signature` is a line that tells who made the file. */
export function shimOf({ runDir, node, plugin }: ShimPlaces, signature: string): string {
  const fields = FIELDS.map((name) => `--data-urlencode "${name}=$${name}"`).join(' \\\n    ');
  return `#!/bin/sh
# inlay-cni, the CNI plugin of Inlay. ${signature}
# A daemon that attaches containers (inlay up --attach on) is asked, because Node takes longer to start than the
# work does. Where there is none, Node does it.
socket=${quote(`${runDir}/attach.sock`)}
node=${quote(node)}
plugin=${quote(plugin)}
line='
'

# fail CODE MESSAGE: an error as CNI has them.
fail() {
  printf '{"cniVersion":"1.0.0","code":%s,"msg":"%s"}\\n' "$1" "$2"
  exit 1
}

require_node() {
  [ -x "$node" ] && [ -f "$plugin" ] && return
  [ "$CNI_COMMAND" = STATUS ] && fail 50 "no daemon attaches containers on this machine"
  fail 11 "no daemon attaches containers on this machine, and there is no Node to do it without one"
}

has() {
  command -v "$1" >/dev/null 2>&1
}

# Both send a form: no character of a variable means anything on the way.
if [ -S "$socket" ] && has perl; then
  unset PERL5OPT PERL5LIB
  answer=$(LC_ALL=C perl -e '${PERL}' "$socket" ${FIELDS.join(' ')})
  config=\${answer%"$line"*}
elif [ -S "$socket" ] && has curl; then
  config=$(cat)
  answer=$(printf %s "$config" | curl -q -sS --noproxy '*' --max-time ${PATIENCE} --unix-socket "$socket" \\
    -w '\\n%{http_code}' \\
    ${fields} \\
    --data-urlencode config@- http://inlay/cni)
  [ $? = 7 ] && answer=\${line}none
else
  require_node
  exec "$node" "$plugin"
fi

body=\${answer%"$line"*}
body=\${body%"$line"}
case \${answer##*"$line"} in
  200)
    [ -z "$body" ] || printf '%s\\n' "$body"
    ;;
  400 | 503)
    # An error as the plugin has them.
    printf '%s\\n' "$body"
    exit 1
    ;;
  none | 404 | 413)
    # The daemon has just ended, or is not the one that the configuration names; or the configuration is too long for it.
    require_node
    printf %s "$config" | "$node" "$plugin"
    ;;
  *)
    fail 11 "the daemon did not answer"
    ;;
esac
`;
}
