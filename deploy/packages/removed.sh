# After the program is removed.

if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null || true
fi
