"""Names of persons in court texts, masked before anything is trained on, kept or shown.

A name is what stands behind a role (被告人, 被害人, 证人 …) and begins with a surname; wherever it occurs it becomes
the surname and 某. Sources mask in part already (张某, 李XX); those stay as they are. A rule, not a guarantee: rare
surnames, names without a role and names of firms remain.

    python -c "from reasoning.legal.names import mask_names; print(mask_names('被告人赵一二盗窃。赵一二到案。'))"
"""

from __future__ import annotations

import re

_SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔钟谭陆"
    "汪范金石廖贾夏韦付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严覃武戴莫孔向汤常温康施文牛樊葛邢安齐易乔伍"
    "庞颜倪庄聂章鲁岳翟殷詹申欧耿关兰焦俞左柳甘祝包宁尚符舒阮柯纪梅童凌毕单季裴霍涂成苗谷盛曲翁冉骆蓝路游辛靳欧管柴蒙"
    "鲍华喻祁蒲房滕屈饶解牟艾尤阳时穆农司卓古吉缪简车项连芦麦褚娄窦戚岑景党宫费卜冷晏席卫米柏宗瞿桂全佟应臧闵苟邬边卞姬"
    "师和仇栾隋商刁沙荣巫寇桑郎甄丛仲虞敖巩明佘池查麻苑迟邝官封谈匡鞠惠荆乐冀郁胥南班储原栗燕楚鄢劳谌奚皮粟冼蔺楼盘满"
)
_ROLE = (
    "被告人|被害人|被害单位负责人|上诉人|证人|辩护人|罪犯|犯罪嫌疑人|同案人|同案犯|同案被告人|自诉人|代理人|"
    "审判长|审判员|书记员"
)
_AFTER = (
    "犯|因|于|在|的|与|和|伙同|及|是|系|对|将|以|为|至|到|向|从|经|曾|有|供|陈|证|等|均|被|携|驾|酒|又|先|来|当|明|利|使|"
    "采|无|违|窜|通|非|故|盗|抢|骗|贩|容|伤|殴|持|醉|未|提|主|归|自|认|如|称|述|随|让|用|，|。|、|；|：|（|\\(|,|\\s|\\n|$"
)
_NAMED = re.compile(rf"(?:{_ROLE})[：:\s]?(?P<name>[{_SURNAMES}][\u4e00-\u9fff]{{1,2}}?)(?={_AFTER})")


def mask_names(text: str) -> str:
    """`text` with the names that follow a role masked wherever they stand: 赵一二 becomes 赵某."""
    names = {m["name"] for m in _NAMED.finditer(text)}
    for name in sorted(names, key=len, reverse=True):
        if "某" not in name:
            text = text.replace(name, f"{name[0]}某")
    return text
