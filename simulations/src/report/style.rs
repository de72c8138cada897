//! What the pages look like.

/// For all pages. Colors are variables, which follow what the reader prefers.
pub(super) const STYLE: &str = "\
:root{color-scheme:light dark;--ground:#fff;--box:#f5f7f9;--text:#1b1f24;--soft:#59636e;--line:#d8dee4;--a:#0b62c4;--b:#c2410c;--c:#15803d;--d:#7c3aed;--e:#a16207;--f:#0e7490;--s1:#f2f7fd;--s2:#e3eefa;--s3:#d3e4f7;--s4:#c2d9f3;--s5:#b1cef0;--good:#15803d;--bad:#c4231c;\
--crash:#d9302c;--leave:#a16207;--pause:#7e8894;--break:#c026d3;--partition:#e8a317;--strike:#7f1d1d;--slow:#0f766e;--one_way:#d97706;--bridge:#65a30d;\
--clog:#6d28d9;--weather:#0284c7;--clock:#475569;--attack:#be123c;--veil:.22}\
@media(prefers-color-scheme:dark){:root{--ground:#14171b;--box:#1c2127;--text:#e6e9ec;--soft:#9aa4ae;--line:#323940;--a:#6cb1ff;--b:#ff9d66;--c:#5fd68b;--d:#c4a1ff;--e:#e3c25f;--f:#5fd4e6;--s1:#18202a;--s2:#1b2938;--s3:#1e3348;--s4:#203d59;--s5:#22476b;--good:#5fd68b;--bad:#ff7b72;\
--crash:#ff6b64;--leave:#d4a72c;--pause:#9aa4ae;--break:#e07bf0;--partition:#e8b84a;--strike:#f87171;--slow:#2dd4bf;--one_way:#fbbf24;--bridge:#a3e635;\
--clog:#a78bfa;--weather:#38bdf8;--clock:#94a3b8;--attack:#fb7185;--veil:.3}}\
*{box-sizing:border-box}body{margin:0 auto;max-width:1120px;padding:20px 16px 48px;background:var(--ground);color:var(--text);font:16px/1.5 system-ui,sans-serif}\
h1{font-size:1.6rem;line-height:1.25;margin:.2em 0;overflow-wrap:anywhere}h2{font-size:1.2rem;margin:2em 0 .4em}h3{font-size:1rem;margin:0 0 .3em}p,figcaption{color:var(--soft);margin:.3em 0;overflow-wrap:anywhere}\
figcaption{font-size:.88rem}code{font:.85rem/1.5 ui-monospace,monospace;overflow-wrap:anywhere}.command{display:block;background:var(--box);border:1px solid var(--line);border-radius:6px;padding:8px 12px;margin:.6em 0}\
.verdict{font-weight:650}.good{color:var(--good)}.bad{color:var(--bad)}\
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,150px),1fr));gap:10px;margin:16px 0}.tiles div{background:var(--box);border:1px solid var(--line);border-radius:6px;padding:8px 12px;min-width:0}\
.tiles b{display:block;font-size:1.25rem;font-variant-numeric:tabular-nums}.tiles span{display:block;color:var(--soft);font-size:.82rem;overflow-wrap:anywhere}\
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,360px),1fr));gap:32px 36px;margin-top:12px}figure{margin:0;min-width:0;max-width:600px}figure>svg{width:100%;height:auto;display:block}figure.wide{max-width:720px;margin:0 auto}\
svg text{fill:var(--soft);font:13px system-ui,sans-serif}svg .label{fill:var(--text)}.grid{stroke:var(--line);stroke-width:1}.curve{fill:none;stroke-width:2.2;stroke-linejoin:round}.dashed{stroke-dasharray:6 4}\
.spans{fill:none;stroke-width:1.6;stroke-opacity:.75}.dots{fill:none;stroke-width:6;stroke-linecap:round}.dots.small{stroke-width:4.5;stroke-opacity:.4}.a{stroke:var(--a)}.b{stroke:var(--b)}.c{stroke:var(--c)}.d{stroke:var(--d)}.e{stroke:var(--e)}.f{stroke:var(--f)}.bars{stroke:none}.bars.a{fill:var(--a)}.bars.b{fill:var(--b)}\
.band{fill-opacity:var(--veil)}.crash{fill:var(--crash)}.leave{fill:var(--leave)}.pause{fill:var(--pause)}.break{fill:var(--break)}.partition{fill:var(--partition)}\
.strike{fill:var(--strike)}.slow{fill:var(--slow)}.one_way{fill:var(--one_way)}.bridge{fill:var(--bridge)}.clog{fill:var(--clog)}.weather{fill:var(--weather)}.clock{fill:var(--clock)}.attack{fill:var(--attack)}\
.links{fill:none;stroke:var(--soft);stroke-opacity:.45;stroke-width:1.1}circle.up{fill:var(--a);stroke:var(--ground);stroke-width:1.5}circle.down{fill:var(--ground);stroke:var(--bad);stroke-width:2}.cross{stroke:var(--bad);stroke-width:2;stroke-opacity:.6}\
svg text.up{fill:var(--ground);font-size:11px}svg text.down{fill:var(--text);font-size:11px}\
.key{display:flex;flex-wrap:wrap;gap:2px 16px;list-style:none;padding:0;margin:4px 0;font-size:.88rem}.key svg{width:26px;height:12px;display:inline-block;vertical-align:middle;margin-right:6px}\
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}th,td{padding:4px 12px 4px 0;border-bottom:1px solid var(--line);text-align:left;white-space:nowrap}\
th{color:var(--soft);font-weight:600}td.number,th.number{text-align:right}td.about,td span,th span{color:var(--soft)}td span,th span{font-size:.82em;font-weight:400}\
#regions td{padding:4px 7px;border:1px solid var(--line)}#regions th{padding-right:8px}#regions thead th{white-space:normal;min-width:4.5em;vertical-align:bottom}\
.shade1{background:var(--s1)}.shade2{background:var(--s2)}.shade3{background:var(--s3)}.shade4{background:var(--s4)}.shade5{background:var(--s5)}";
