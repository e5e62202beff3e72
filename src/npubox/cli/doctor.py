# SPDX-License-Identifier: Apache-2.0
"""`npubox doctor`: what of `npubox exec` works on this host, and why the rest does not."""

from __future__ import annotations

from npubox.cli import options


def doctor(json: options.Json = False) -> None:
    """Try everything that serving device nodes needs."""
    from npubox.serve.doctor import NEVER, conclusion, examine

    findings = list(examine())
    if json:
        import json as json_module
        from dataclasses import asdict

        report = {
            "findings": [asdict(finding) for finding in findings],
            "conclusion": conclusion(findings),
            "never": NEVER,
        }
        print(json_module.dumps(report))
    else:
        for finding in findings:
            state = "yes" if finding.problem is None else "NO" if finding.needed else "no"
            print(f"{state:<4} {finding.name}" + (f": {finding.problem}" if finding.problem else ""))
        print(f"\n{conclusion(findings)}\n\nwhat cannot work on any host:")
        for line in NEVER:
            print(f"  {line}")
    if any(finding.needed and finding.problem for finding in findings):
        raise options.Failed("device nodes cannot be served here")
