# After the files are in place. `$former` is not empty where a former version was installed.

pins=/sys/fs/bpf/sipguard

if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null || true
fi
[ -n "$former" ] || exit 0

# The programs that filter are replaced at once, and a refusal leaves the former ones at work. The package is good in either
# case, and more so than one that is half installed.
if [ -d "$pins" ] && ! /usr/sbin/sipguard upgrade; then
    echo "sipguard: the programs of the former version go on filtering; see 'Another build' in" >&2
    echo "sipguard: /usr/share/doc/sipguard/attach.md, then run 'sipguard upgrade' again" >&2
fi
for of in "$pins"@*; do
    [ -d "$of/links" ] || continue
    name=$(printf %s "${of#"$pins"@}" | sed 's/%2E/./g')
    if ! /usr/sbin/sipguard upgrade --container "$name"; then
        echo "sipguard: the programs of the former version go on filtering in container $name; run" >&2
        echo "sipguard: 'sipguard upgrade --container $name=PID' with a process of it" >&2
    fi
done
if [ -d /run/systemd/system ]; then
    systemctl try-restart sipguard-serve.service >/dev/null || true
fi
