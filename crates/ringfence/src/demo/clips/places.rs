//! Where the people of `clips` live, and the telephone numbers there.
//!
//! Numbers come from ranges set aside for fiction where a country has one, else from what lies, as
//! far as we know, outside the ranges its operators give out.
#![allow(
    clippy::inconsistent_digit_grouping,
    clippy::large_digit_groups,
    reason = "in a coordinate the underscore stands where the decimal point would"
)]

/// A city, in hundred-thousandths of a degree, with a pattern for telephone numbers in which `#` is
/// a digit. A big city stands in the list several times.
#[derive(Clone, Copy, Debug)]
pub(super) struct City {
    pub(super) name: &'static str,
    pub(super) lat_e5: i32,
    pub(super) lon_e5: i32,
    pub(super) phone: &'static str,
}

const fn city(name: &'static str, lat_e5: i32, lon_e5: i32, phone: &'static str) -> City {
    City { name, lat_e5, lon_e5, phone }
}

/// NANP numbers with 555-0100 to 555-0199 are set aside for fiction.
pub(super) static US_CITIES: &[City] = &[
    city("Albuquerque", 35_08449, -106_65042, "+1 505 555 01##"),
    city("Anchorage", 61_21806, -149_90028, "+1 907 555 01##"),
    city("Atlanta", 33_74900, -84_38798, "+1 404 555 01##"),
    city("Atlanta", 33_74900, -84_38798, "+1 678 555 01##"),
    city("Austin", 30_26715, -97_74306, "+1 512 555 01##"),
    city("Austin", 30_26715, -97_74306, "+1 737 555 01##"),
    city("Baltimore", 39_29038, -76_61219, "+1 410 555 01##"),
    city("Boise", 43_61502, -116_20231, "+1 208 555 01##"),
    city("Boston", 42_36008, -71_05888, "+1 617 555 01##"),
    city("Boston", 42_36008, -71_05888, "+1 857 555 01##"),
    city("Brooklyn", 40_67818, -73_94416, "+1 347 555 01##"),
    city("Brooklyn", 40_67818, -73_94416, "+1 718 555 01##"),
    city("Brooklyn", 40_67818, -73_94416, "+1 929 555 01##"),
    city("Buffalo", 42_88645, -78_87837, "+1 716 555 01##"),
    city("Charlotte", 35_22709, -80_84313, "+1 704 555 01##"),
    city("Charlotte", 35_22709, -80_84313, "+1 980 555 01##"),
    city("Chicago", 41_87811, -87_62980, "+1 312 555 01##"),
    city("Chicago", 41_87811, -87_62980, "+1 773 555 01##"),
    city("Chicago", 41_87811, -87_62980, "+1 872 555 01##"),
    city("Cleveland", 41_49932, -81_69436, "+1 216 555 01##"),
    city("Columbus", 39_96118, -82_99879, "+1 614 555 01##"),
    city("Dallas", 32_77667, -96_79699, "+1 214 555 01##"),
    city("Dallas", 32_77667, -96_79699, "+1 972 555 01##"),
    city("Denver", 39_73924, -104_99025, "+1 303 555 01##"),
    city("Denver", 39_73924, -104_99025, "+1 720 555 01##"),
    city("Detroit", 42_33143, -83_04575, "+1 313 555 01##"),
    city("El Paso", 31_76188, -106_48502, "+1 915 555 01##"),
    city("Fresno", 36_73780, -119_78713, "+1 559 555 01##"),
    city("Honolulu", 21_30694, -157_85833, "+1 808 555 01##"),
    city("Houston", 29_76043, -95_36980, "+1 281 555 01##"),
    city("Houston", 29_76043, -95_36980, "+1 713 555 01##"),
    city("Houston", 29_76043, -95_36980, "+1 832 555 01##"),
    city("Indianapolis", 39_76840, -86_15807, "+1 317 555 01##"),
    city("Jacksonville", 30_33218, -81_65565, "+1 904 555 01##"),
    city("Kansas City", 39_09973, -94_57857, "+1 816 555 01##"),
    city("Las Vegas", 36_16994, -115_13983, "+1 702 555 01##"),
    city("Las Vegas", 36_16994, -115_13983, "+1 725 555 01##"),
    city("Los Angeles", 34_05223, -118_24368, "+1 213 555 01##"),
    city("Los Angeles", 34_05223, -118_24368, "+1 310 555 01##"),
    city("Los Angeles", 34_05223, -118_24368, "+1 323 555 01##"),
    city("Los Angeles", 34_05223, -118_24368, "+1 818 555 01##"),
    city("Memphis", 35_14953, -90_04898, "+1 901 555 01##"),
    city("Miami", 25_76168, -80_19179, "+1 305 555 01##"),
    city("Miami", 25_76168, -80_19179, "+1 786 555 01##"),
    city("Milwaukee", 43_03890, -87_90647, "+1 414 555 01##"),
    city("Minneapolis", 44_97775, -93_26501, "+1 612 555 01##"),
    city("Nashville", 36_16266, -86_78160, "+1 615 555 01##"),
    city("New Orleans", 29_95107, -90_07153, "+1 504 555 01##"),
    city("New York", 40_71278, -74_00594, "+1 212 555 01##"),
    city("New York", 40_71278, -74_00594, "+1 332 555 01##"),
    city("New York", 40_71278, -74_00594, "+1 646 555 01##"),
    city("New York", 40_71278, -74_00594, "+1 917 555 01##"),
    city("Oakland", 37_80436, -122_27111, "+1 510 555 01##"),
    city("Omaha", 41_25654, -95_93450, "+1 402 555 01##"),
    city("Orlando", 28_53834, -81_37924, "+1 407 555 01##"),
    city("Philadelphia", 39_95258, -75_16522, "+1 215 555 01##"),
    city("Philadelphia", 39_95258, -75_16522, "+1 267 555 01##"),
    city("Phoenix", 33_44838, -112_07404, "+1 480 555 01##"),
    city("Phoenix", 33_44838, -112_07404, "+1 602 555 01##"),
    city("Pittsburgh", 40_44062, -79_99589, "+1 412 555 01##"),
    city("Portland", 45_52306, -122_67648, "+1 503 555 01##"),
    city("Raleigh", 35_77959, -78_63818, "+1 919 555 01##"),
    city("Sacramento", 38_58157, -121_49440, "+1 916 555 01##"),
    city("Salt Lake City", 40_76078, -111_89105, "+1 801 555 01##"),
    city("San Antonio", 29_42412, -98_49363, "+1 210 555 01##"),
    city("San Diego", 32_71574, -117_16108, "+1 619 555 01##"),
    city("San Diego", 32_71574, -117_16108, "+1 858 555 01##"),
    city("San Francisco", 37_77493, -122_41942, "+1 415 555 01##"),
    city("San Francisco", 37_77493, -122_41942, "+1 628 555 01##"),
    city("San Jose", 37_33821, -121_88633, "+1 408 555 01##"),
    city("Seattle", 47_60621, -122_33207, "+1 206 555 01##"),
    city("Seattle", 47_60621, -122_33207, "+1 425 555 01##"),
    city("St. Louis", 38_62700, -90_19940, "+1 314 555 01##"),
    city("Tampa", 27_95058, -82_45718, "+1 813 555 01##"),
    city("Tucson", 32_22261, -110_97471, "+1 520 555 01##"),
    city("Tulsa", 36_15398, -95_99277, "+1 918 555 01##"),
    city("Washington", 38_90719, -77_03687, "+1 202 555 01##"),
];

/// The Bundesnetzagentur lists numbers for film and television; these blocks of mobile ones are
/// among them.
pub(super) static DE_CITIES: &[City] = &[
    city("Berlin", 52_52001, 13_40495, "+49 171 39200##"),
    city("Berlin", 52_52001, 13_40495, "+49 176 040690##"),
    city("Cologne", 50_93753, 6_96028, "+49 176 040690##"),
    city("Dresden", 51_05041, 13_73726, "+49 171 39200##"),
    city("Frankfurt", 50_11092, 8_68213, "+49 176 040690##"),
    city("Hamburg", 53_55109, 9_99368, "+49 171 39200##"),
    city("Leipzig", 51_33970, 12_37307, "+49 176 040690##"),
    city("Munich", 48_13513, 11_58198, "+49 171 39200##"),
    city("Stuttgart", 48_77585, 9_18293, "+49 176 040690##"),
];

/// Arcep keeps 06 39 98 for fiction.
pub(super) static FR_CITIES: &[City] = &[
    city("Bordeaux", 44_83779, -57918, "+33 6 39 98 ## ##"),
    city("Lille", 50_62925, 3_05726, "+33 6 39 98 ## ##"),
    city("Lyon", 45_76404, 4_83566, "+33 6 39 98 ## ##"),
    city("Marseille", 43_29648, 5_36978, "+33 6 39 98 ## ##"),
    city("Nantes", 47_21837, -1_55362, "+33 6 39 98 ## ##"),
    city("Nice", 43_71017, 7_26195, "+33 6 39 98 ## ##"),
    city("Paris", 48_85661, 2_35222, "+33 6 39 98 ## ##"),
    city("Paris", 48_85661, 2_35222, "+33 6 39 98 ## ##"),
    city("Strasbourg", 48_57341, 7_75211, "+33 6 39 98 ## ##"),
    city("Toulouse", 43_60465, 1_44421, "+33 6 39 98 ## ##"),
];

/// Spanish mobile numbers begin with 6 or with 71 to 74; 799 is nobody's.
pub(super) static ES_CITIES: &[City] = &[
    city("Barcelona", 41_38506, 2_17340, "+34 799 ### ###"),
    city("Bilbao", 43_26301, -2_93499, "+34 799 ### ###"),
    city("Granada", 37_17734, -3_59856, "+34 799 ### ###"),
    city("Madrid", 40_41678, -3_70379, "+34 799 ### ###"),
    city("Madrid", 40_41678, -3_70379, "+34 799 ### ###"),
    city("Málaga", 36_72127, -4_42140, "+34 799 ### ###"),
    city("Sevilla", 37_38909, -5_98446, "+34 799 ### ###"),
    city("Valencia", 39_46991, -37629, "+34 799 ### ###"),
    city("Zaragoza", 41_64882, -88909, "+34 799 ### ###"),
];

/// Italian mobile numbers begin with 32 to 39; 30 is nobody's.
pub(super) static IT_CITIES: &[City] = &[
    city("Bari", 41_11714, 16_87187, "+39 301 ### ####"),
    city("Bologna", 44_49489, 11_34262, "+39 301 ### ####"),
    city("Florence", 43_76956, 11_25581, "+39 301 ### ####"),
    city("Milan", 45_46420, 9_18998, "+39 301 ### ####"),
    city("Naples", 40_85180, 14_26812, "+39 301 ### ####"),
    city("Palermo", 38_11569, 13_36149, "+39 301 ### ####"),
    city("Rome", 41_90278, 12_49637, "+39 301 ### ####"),
    city("Rome", 41_90278, 12_49637, "+39 301 ### ####"),
    city("Turin", 45_07031, 7_68686, "+39 301 ### ####"),
];

/// Dutch mobile numbers begin with 61 to 65 or 68; 690 is nobody's.
pub(super) static NL_CITIES: &[City] = &[
    city("Amsterdam", 52_36757, 4_90414, "+31 6 90######"),
    city("Amsterdam", 52_36757, 4_90414, "+31 6 90######"),
    city("Eindhoven", 51_44164, 5_46972, "+31 6 90######"),
    city("Groningen", 53_21938, 6_56650, "+31 6 90######"),
    city("Rotterdam", 51_92442, 4_47773, "+31 6 90######"),
    city("The Hague", 52_07050, 4_30070, "+31 6 90######"),
    city("Utrecht", 52_09074, 5_12142, "+31 6 90######"),
];

/// Polish numbers beginning with 49 are nobody's.
pub(super) static PL_CITIES: &[City] = &[
    city("Gdańsk", 54_35203, 18_64664, "+48 49# ### ###"),
    city("Katowice", 50_26489, 19_02378, "+48 49# ### ###"),
    city("Kraków", 50_06465, 19_94498, "+48 49# ### ###"),
    city("Łódź", 51_75925, 19_45598, "+48 49# ### ###"),
    city("Poznań", 52_40637, 16_92517, "+48 49# ### ###"),
    city("Warsaw", 52_22968, 21_01223, "+48 49# ### ###"),
    city("Warsaw", 52_22968, 21_01223, "+48 49# ### ###"),
    city("Wrocław", 51_10789, 17_03854, "+48 49# ### ###"),
];

/// `ComReg` keeps 020 91 for drama.
pub(super) static IE_CITIES: &[City] = &[
    city("Cork", 51_89689, -8_48632, "+353 20 91# ####"),
    city("Dublin", 53_34981, -6_26031, "+353 20 91# ####"),
    city("Dublin", 53_34981, -6_26031, "+353 20 91# ####"),
    city("Galway", 53_27067, -9_05679, "+353 20 91# ####"),
    city("Limerick", 52_66386, -8_62677, "+353 20 91# ####"),
    city("Waterford", 52_25932, -7_11007, "+353 20 91# ####"),
];

/// Singapore's 999 is the police, so no subscriber has a number that begins with it.
pub(super) static SG_CITIES: &[City] = &[
    city("Ang Mo Kio", 1_36908, 103_84543, "+65 999# ####"),
    city("Bedok", 1_32361, 103_92728, "+65 999# ####"),
    city("Bishan", 1_35085, 103_84826, "+65 999# ####"),
    city("Bukit Timah", 1_32940, 103_80207, "+65 999# ####"),
    city("Clementi", 1_31514, 103_76527, "+65 999# ####"),
    city("Hougang", 1_36123, 103_88624, "+65 999# ####"),
    city("Jurong East", 1_33318, 103_74225, "+65 999# ####"),
    city("Queenstown", 1_29417, 103_78613, "+65 999# ####"),
    city("Sengkang", 1_39157, 103_89545, "+65 999# ####"),
    city("Tampines", 1_35313, 103_94519, "+65 999# ####"),
    city("Toa Payoh", 1_33432, 103_85630, "+65 999# ####"),
    city("Yishun", 1_42938, 103_83503, "+65 999# ####"),
];

/// Chinese mobile numbers begin with 13 to 19; 12 is nobody's.
pub(super) static CN_CITIES: &[City] = &[
    city("Beijing", 39_90420, 116_40740, "+86 120 #### ####"),
    city("Beijing", 39_90420, 116_40740, "+86 120 #### ####"),
    city("Changsha", 28_22821, 112_93881, "+86 120 #### ####"),
    city("Chengdu", 30_57282, 104_06680, "+86 120 #### ####"),
    city("Chongqing", 29_56301, 106_55156, "+86 120 #### ####"),
    city("Guangzhou", 23_12911, 113_26439, "+86 120 #### ####"),
    city("Hangzhou", 30_27408, 120_15507, "+86 120 #### ####"),
    city("Nanjing", 32_06025, 118_79688, "+86 120 #### ####"),
    city("Qingdao", 36_06711, 120_38261, "+86 120 #### ####"),
    city("Shanghai", 31_23039, 121_47370, "+86 120 #### ####"),
    city("Shanghai", 31_23039, 121_47370, "+86 120 #### ####"),
    city("Shenzhen", 22_54310, 114_05787, "+86 120 #### ####"),
    city("Wuhan", 30_59276, 114_30525, "+86 120 #### ####"),
    city("Xi'an", 34_34157, 108_93977, "+86 120 #### ####"),
];
