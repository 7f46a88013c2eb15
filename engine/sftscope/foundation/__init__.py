"""What everything uses: errors, safe text, output, progress, signals, threads, and a process for what may crash."""
