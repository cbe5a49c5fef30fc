"""Prints results of `pegaflow bench ... --json` as a table: python3 benchmarks/show.py FILE..."""
import json
import sys

for name in sys.argv[1:]:
    try:
        result = json.load(open(name))
    except (OSError, ValueError) as error:
        print(f"{name}: {error}")
        continue
    peak = result["peak"]
    print(f"  peak {peak['measured_bytes_per_s'] / 1e9:.2f} GB/s", end="")
    print(f", both {peak['both_directions_bytes_per_s'] / 1e9:.2f}" if "both_directions_bytes_per_s" in peak else "")
    for row in result["results"]:
        direction = row["path"] if row["path"].startswith("p2p") else ""
        line = f"  {direction:<{10 if direction else 0}}{row.get('preset') or row['fragment_bytes']:>18} {row['backend']:>7} {row['pct_of_peak']:6.1f} %"
        if "together" in row:
            together = row["together"]
            line += "  copies " + " + ".join(f"{rate / 1e9:.2f}" for rate in together["copies_bytes_per_s"])
            if "product_loss_pct" in together:
                line += f"  beside product kept {together['copies_kept_pct']:.1f} %, product loses {together['product_loss_pct']:.2f} %"
        else:
            times = row.get("time_us") or row["solo_time_us"]  # as older results call it
            line += (f"  {row['bytes_per_s']['median'] / 1e9:6.2f} GB/s cv {row['bytes_per_s']['cv_pct']:.1f}"
                     f"  solo {row['solo_pct_of_peak']:5.1f} % p50 {times['p50']:.0f} us"
                     f"  submit {row['submit_ns_per_fragment']:.1f} ns/fragment  wrong {row['wrong_bytes']}")
            if "digests" in row:
                line += f"  digests {'computed' if row['digests']['computed'] else 'left to the processor'}, wrong {row['digests']['wrong']}"
        print(line)
